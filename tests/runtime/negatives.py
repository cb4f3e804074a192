"""What the guard must turn away: drawn here, or a library's own test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from stageproof.runtime import ImageError, read_image
from stageproof.runtime.images.reader import read

RNG = np.random.default_rng(17)


def array(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def text() -> Image.Image:
    page = Image.new("L", (200, 260), 255)
    pen = ImageDraw.Draw(page)
    for line in range(18):
        pen.text((10, 8 + 13 * line), "".join(RNG.choice(list("abcdefgh ijkl mno prstu"), 30)), fill=0)
    return page


def chest() -> Image.Image:
    """Two dark lungs in a bright body that fills the frame, as on a radiograph."""
    picture = Image.new("L", (128, 128), 190)
    pen = ImageDraw.Draw(picture)
    shift = int(RNG.integers(-4, 5))
    pen.ellipse((14 + shift, 22, 58, 108), fill=45)
    pen.ellipse((70, 22, 114 + shift, 108), fill=45)
    for rib in range(7):
        pen.arc((10, 18 + 12 * rib, 118, 60 + 12 * rib), 200, 340, fill=130, width=3)
    return array(np.asarray(picture) + RNG.normal(0, 6, (128, 128)))


def with_skull(image: Image.Image, skull: int, marrow: int) -> Image.Image:
    """The slice drawn smaller inside a bright ring, as before skull stripping; bright as bone, as on CT."""
    small = np.asarray(image.resize((100, 100)))
    rows, columns = np.nonzero(small > 10)
    box = [columns.min() + 14, rows.min() + 14, columns.max() + 14, rows.max() + 14]
    head = Image.new("L", (128, 128))
    pen = ImageDraw.Draw(head)
    pen.ellipse((box[0] - 11, box[1] - 11, box[2] + 11, box[3] + 11), fill=marrow)
    pen.ellipse((box[0] - 8, box[1] - 8, box[2] + 8, box[3] + 8), fill=skull)
    pen.ellipse((box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3), fill=20)
    pixels = np.array(head)
    inside = pixels[14:114, 14:114]
    inside[small > 10] = small[small > 10]
    return Image.fromarray(pixels)


def negatives(slices: list[Image.Image]) -> dict[str, list[Image.Image]]:
    """What the model must not speak of, by kind."""
    some = slices[:: max(1, len(slices) // 60)]
    flipped = [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180]
    return {
        "black": [Image.new("L", (128, 128), value) for value in (0, 1, 5)],
        "white": [Image.new("L", (128, 128), value) for value in (255, 128)] + [Image.new("RGB", (90, 64), "white")],
        "noise": [array(RNG.integers(0, 256, (128, 128))) for _ in range(40)],
        "coarse noise": [array(np.kron(RNG.integers(0, 256, (8, 8)), np.ones((16, 16)))) for _ in range(40)],
        "coloured noise": [array(RNG.integers(0, 256, (64, 64, 3))) for _ in range(20)],
        "text": [text() for _ in range(20)],
        "white on black text": [array(255 - np.asarray(text())) for _ in range(20)],
        "chest": [chest() for _ in range(20)],
        "gradient": [array(np.add.outer(np.arange(128) * a, np.arange(128) * b)) for a in (0, 1, 2) for b in (0.5, 2)],
        "discs": [array((np.hypot(*(np.mgrid[:128, :128] - 64.0)) < r) * 200.0) for r in range(10, 64, 6)],
        "turned": [image.transpose(way) for image in some for way in flipped],
        "inverted": [array(255 - np.asarray(image, np.int16)) for image in some],
        "skull on MR": [with_skull(image, 30, 220) for image in some],
        "CT": [with_skull(image, 250, 90) for image in some],
        "cropped": [
            image.crop([int(side * part) for side, part in zip(image.size * 2, (0.2, 0.2, 0.8, 0.8), strict=True)])
            for image in some
        ],
    }


def library_images() -> list[Image.Image]:
    """The test photographs of scikit-image and scikit-learn, and what pydicom ships of other modalities than MR."""
    found = []
    for name, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        module = pytest.importorskip(name, reason="its test images are the photographs")
        for path in sorted((Path(module.__file__).parent / folder).iterdir()):
            if path.suffix in (".png", ".jpg"):
                found.append(read_image(path))
    pydicom = pytest.importorskip("pydicom", reason="its test images are the CT and the ultrasound")
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        try:
            picture = read(path)
        except ImageError:  # no image, several frames, or a codec that is not read
            continue
        if any("the modality" in warning for warning in picture.warnings):
            found.append(picture.image)
    return found
