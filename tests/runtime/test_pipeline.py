"""Images that are prepared together come out as each does alone."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from PIL import Image

from stageproof.runtime import Predictor
from stageproof.runtime.inference.input_batches import Prepared, fill, prepare


def facts(one: Prepared) -> dict[str, object]:
    """All but what was spent on it."""
    return {field.name: getattr(one, field.name) for field in fields(one) if not field.name.endswith("_ms")}


def test_what_stands_beside_an_image_changes_nothing_of_it(guarded: Predictor, phantoms) -> None:
    spec, guard = guarded.model.input, guarded._guard
    sources = [*phantoms.images[:20], b"", Image.new("L", (90, 80)), "none.png", *phantoms.images[20:30]]
    together = prepare(iter(sources), spec, guard, lambda image: str(image.size))
    for one, source in zip(together, sources, strict=True):
        (alone,) = prepare([source], spec, guard, lambda image: str(image.size))
        got, expected = facts(one), facts(alone)
        assert np.array_equal(got.pop("pixels"), expected.pop("pixels"))
        assert str(got.pop("error")) == str(expected.pop("error"))
        assert got == expected


def test_only_what_the_model_may_speak_of_keeps_its_pixels(guarded: Predictor, phantoms) -> None:
    spec = guarded.model.input
    sources = [b"", Image.new("L", (90, 80)), *phantoms.images[:20]]
    batch = prepare(sources, spec, guarded._guard)
    assert [one.code for one in batch[:2]] == ["unreadable", "blank"]
    assert all((one.pixels is None) == bool(one.code) for one in batch)
    assert batch[2].guard
    assert batch[2].digest is None
    rows = np.empty((len(batch), *spec.shape), np.float32)
    count, _ = fill(rows, batch, spec)
    assert count == sum(not one.code for one in batch) > 15


def test_nothing_readable_is_nothing_to_judge(guarded: Predictor) -> None:
    spec = guarded.model.input
    batch = prepare([b"", None], spec, guarded._guard)
    assert [one.code for one in batch] == ["unreadable", "unreadable"]
    assert fill(np.empty((2, *spec.shape), np.float32), batch, spec)[0] == 0
