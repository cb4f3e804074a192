"""One cohort in every layout: the same labels, patients and order of classes, whatever they are written in."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.age_and_sex import traits_of
from stageproof.train.data.sources.source import load_parts
from tests.cohort import LAYOUTS, SETS, cohort, halves, key

PARTS = {name for name in LAYOUTS if "test" in name or "splits" in name or "Dict" in name}


def read_back(samples: Samples) -> dict[str, tuple[str, int]]:
    """Digest of the pixels → class and patient, as they were read."""
    assert samples.ids is not None
    labels = [samples.classes.names[label] for label in samples.labels]
    images = [key(samples.read(at)) for at in range(len(samples))]
    return dict(zip(images, zip(labels, samples.ids.subjects.tolist(), strict=True), strict=True))


@pytest.mark.parametrize("classes", SETS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_with_two_to_seven_classes(layout: str, classes: int, tmp_path) -> None:
    if "dicom" in layout:
        pytest.importorskip("pydicom", reason="the extra dicom")
    slices = cohort(classes)
    path = LAYOUTS[layout](slices, tmp_path / "data")
    given = None if classes < 7 else SETS[classes]
    samples, part = load_parts(path, classes=given)
    assert samples.classes == SETS[classes]
    found = read_back(samples)
    assert len(samples) == len(found) == len(slices)
    assert {image: label for image, (label, _) in found.items()} == {key(one.png): one.label for one in slices}
    pairs = {(one.patient, found[key(one.png)][1]) for one in slices}
    assert len(pairs) == len({one.patient for one in slices}) == len({number for _, number in pairs})
    assert len(set(samples.names)) == len(samples)
    if layout != "tsv":  # whose paths are absolute
        assert not any(str(tmp_path) in name or "stageproof-" in name for name in samples.names)
    assert samples.source == str(path)
    assert (part is not None) == (layout in PARTS)
    if part is not None:
        expected = {key(one.png): name for name, chosen in halves(slices).items() for one in chosen}
        assert {key(samples.read(at)): name for at, name in enumerate(part)} == expected
        assert all(name.startswith(f"{where}/") for name, where in zip(samples.names, part, strict=True))
    if any(word in layout for word in ("csv", "BIDS", "parquet", "shards", "save")) and layout not in PARTS:
        traits = traits_of(path, samples.names[::-1])
        ages = {key(one.png): one.age for one in slices}
        expected = [ages[key(samples.read(at))] for at in range(len(samples))][::-1]
        assert (traits.ages.tolist() if traits else None) == (None if layout == "dicom and csv" else expected)
    again, _ = load_parts(path, classes=SETS[classes])
    assert again.digest() == samples.digest()
    assert again.names == samples.names
    assert np.array_equal(again.labels, samples.labels)
