"""What is answered for the clock is worth the time: different images that the model may speak about."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from stageproof.benchmarks.inference.images import check, images_for, jpegs
from stageproof.runtime import InputError
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.guard.ood_guard import fit
from stageproof.runtime.images.raster import read_image


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def slices():
    return jpegs(32)


def test_phantoms_are_different_grey_jpegs(slices):
    assert len(set(slices)) == len(slices) == 32
    assert all(file.startswith(b"\xff\xd8") for file in slices)
    check(slices)


def test_images_that_are_all_alike_are_refused(slices):
    with pytest.raises(InputError, match="1 different images were given, expected at least 8"):
        check(slices[:1] * 32)


def test_too_few_are_refused(slices):
    with pytest.raises(InputError, match="3 different images"):
        check(slices[:3])


@pytest.mark.parametrize("value", [0, 128])
def test_blank_images_are_refused(slices, value):
    # Of different sizes, so that they differ as files: zeros are what most benchmarks feed their engines.
    blank = [encoded(np.full((64, 64 + position), value, np.uint8)) for position in range(4)]
    with pytest.raises(InputError, match="4 of 36 images are blank"):
        check(slices + blank)


def test_what_is_no_image_is_refused(slices):
    with pytest.raises(InputError, match="Image 32 cannot be read"):
        check([*slices, b"no image"])


def test_without_data_the_runs_held_out_slices_are_answered(trained_run, bundle):
    images, source = images_for(read_manifest(bundle), bundle, trained_run, None, 16)
    assert source.startswith("phantom")
    assert 8 <= len(images) <= 16
    assert all(image.startswith(b"\xff\xd8") for image in images)


def test_images_that_the_guard_rejects_are_not_answered(tmp_path, bundle, slices):
    from dataclasses import replace

    from stageproof.runtime.bundle.manifest import Document

    manifest = replace(read_manifest(bundle), guard=Document("guard.npz", "0" * 64))
    fit((read_image(image) for image in slices), list(range(32))).write(tmp_path / "guard.npz")
    noise = np.random.default_rng(0).integers(0, 255, (16, 64, 64), np.uint8)
    data = tmp_path / "data"
    data.mkdir()
    for position, pixels in enumerate(noise):
        (data / f"noise-{position}.png").write_bytes(encoded(pixels))
    with pytest.raises(InputError, match=r"guard rejects 16 of 16 images.*--data"):
        images_for(manifest, tmp_path, None, data, 64)
    for position, image in enumerate(slices):
        (data / f"slice-{position}.jpg").write_bytes(image)
    images, source = images_for(manifest, tmp_path, None, data, 64)
    assert source == "data"
    assert 24 <= len(images) <= 32
