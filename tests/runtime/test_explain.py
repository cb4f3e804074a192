"""Grad-CAM pictures: the right place, the right words on them, nothing half-written."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime import InputError, Predictor, preprocess, read_image
from stageproof.runtime.explain.__main__ import main
from stageproof.runtime.explain.background import head, share_outside
from stageproof.runtime.explain.explanation import explain_prediction
from stageproof.runtime.explain.gradcam import grad_cam, why_unavailable
from stageproof.runtime.explain.layers import LAYERS, layers_of
from stageproof.runtime.explain.overlay import SIDE, draw_overlay
from tests import tiny

needs_captum = pytest.mark.skipif(why_unavailable() is not None, reason=f"Grad-CAM {why_unavailable()}")


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of the tests' own network: 8 × 8 and 16 × 16 cells at 32 × 32 pixels."""
    monkeypatch.setitem(LAYERS, tiny.NAME, ("maxpool", "conv1"))


@needs_captum
def test_the_picture_says_what_it_is(other_formats: Path, scan: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "cam.png"
    assert main([str(other_formats), str(scan), "--out", str(out)]) == 2
    assert "TrustError: " in capsys.readouterr().err
    assert main([str(other_formats), str(scan), "--trust-code", "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert captured.err == "Research use only: not a diagnosis.\n"
    page = Image.open(out)
    assert page.text["Description"] == "RESEARCH USE ONLY. Not a diagnosis."
    pixels = np.asarray(page.convert("RGB")).astype(int)
    assert page.width > 2 * SIDE
    below = pixels[SIDE + 12 :]
    yellow = (below[..., 0] > 200) & (below[..., 1] > 200) & (below[..., 2] < 80)
    assert yellow.sum() > 200  # the words stand on the picture itself
    left, right = pixels[12 : 12 + SIDE, 12 : 12 + SIDE], pixels[12 : 12 + SIDE, 24 + SIDE : 24 + 2 * SIDE]
    assert (np.ptp(left, axis=2) == 0).all()  # the grey slice as it is
    assert (np.ptp(right, axis=2) > 20).mean() > 0.01
    assert list(tmp_path.iterdir()) == [out]


@needs_captum
def test_a_patients_name_is_neither_said_nor_drawn(other_formats: Path, scan: Path, tmp_path: Path, capfd) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom")
    pixels = np.asarray(read_image(scan))
    file = pydicom.dcmread(Path(pydicom.__file__).parent / "data" / "test_files" / "MR_small.dcm")
    file.Rows, file.Columns = pixels.shape
    file.PixelData = pixels.astype(np.int16).tobytes()
    file.WindowCenter, file.WindowWidth = 128, 256
    for element in ("PatientName", "PatientID", "PatientComments", "StudyDescription", "ImageComments"):
        setattr(file, element, "Zyxwvut^Qponml")
    file.save_as(tmp_path / "slice.dcm")
    assert b"Zyxwvut" in (tmp_path / "slice.dcm").read_bytes()
    assert (
        main([str(other_formats), str(tmp_path / "slice.dcm"), "--trust-code", "--out", str(tmp_path / "cam.png")]) == 0
    )
    png = (tmp_path / "cam.png").read_bytes()
    captured = capfd.readouterr()
    for text in (captured.out, captured.err, str(Image.open(io.BytesIO(png)).info), png.decode("latin1")):
        assert "Zyxwvut" not in text
    assert png == explain_prediction(other_formats, pixels, trust_code=True)[1], (
        "nothing but pixels reaches the picture"
    )


@needs_captum
def test_it_is_the_gradient_of_the_eager_network(other_formats: Path, scan: Path) -> None:
    import torch

    model = tiny.build()
    model.load_state_dict(torch.load(other_formats.parent / "tiny.pth", weights_only=True))
    assert_gradient(other_formats, model.eval(), tiny.NAME, scan)


@pytest.mark.slow
@needs_captum
@pytest.mark.parametrize(("architecture", "expected"), [("resnet50", "layer2"), ("resnet34-gray", "layer1")])
def test_of_the_published_networks_too(architecture: str, expected: str) -> None:
    import torch

    from stageproof.runtime.networks.spec import default_channels
    from stageproof.train.networks import build

    torch.manual_seed(0)
    model = build(architecture, 4).eval()
    pixels = np.random.default_rng(0).normal(size=(default_channels(architecture), 64, 64)).astype(np.float32)
    assert_cells(exported(model, pixels), model, architecture, pixels, expected)


@needs_captum
@pytest.mark.parametrize(
    ("architecture", "layer"),
    [("mobilenet_v3_small", "features.3"), ("squeezenet1_1", "features.7")],
)
def test_a_convolutional_network_of_torchvision(architecture: str, layer: str) -> None:
    import torch

    from stageproof.train.networks import build

    torch.manual_seed(0)
    model = build(architecture, 4).eval()
    pixels = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    size = {"features.3": 8, "features.7": 7}[layer]
    assert_cells(exported(model, pixels), model, architecture, pixels, layer, size)


def test_the_layers_of_each_family_are_modules_of_its_networks() -> None:
    torch = pytest.importorskip("torch", reason="the extra torch")
    from stageproof.runtime.networks.torchvision_models import names
    from stageproof.train.networks import build

    for architecture in ("densenet121", "regnet_y_400mf", "googlenet", "inception_v3", "mnasnet0_5", "vgg11"):
        with torch.device("meta"):
            modules = [name for name, _ in build(architecture, 4).named_modules()]
        layers = layers_of(architecture, modules)
        assert len(layers) >= 3
        assert set(layers) <= set(modules)
    for architecture in names():
        if architecture.startswith(("vit", "swin", "maxvit")):
            with pytest.raises(InputError, match=rf"{architecture} computes attention between patches"):
                layers_of(architecture, ())
        else:
            layers_of(architecture, ())
    with pytest.raises(InputError, match=r"Grad-CAM supports resnet34-gray and .*; the model is 'other'"):
        grad_cam(b"", "other", np.zeros((3, 8, 8), np.float32), 0)


def assert_gradient(bundle: Path, model, architecture: str, scan: Path) -> None:
    predictor = Predictor(bundle, backend="torch-export", guard=False, trust_code=True)
    pixels = preprocess(read_image(scan), predictor.model.input)
    assert_cells(predictor.artifact.read_bytes(), model, architecture, pixels, "maxpool")


def assert_cells(content: bytes, model, architecture: str, pixels: np.ndarray, layer: str, size: int = 8) -> None:
    """Against Selvaraju et al. 2017, equations 1 and 2, written out on the network's own weights."""
    import torch

    kept = {}
    model.get_submodule(layer).register_forward_hook(lambda _, __, out: kept.update(maps=out))
    for target in range(4):
        logits = model(torch.from_numpy(pixels[None]).requires_grad_(True))
        (gradient,) = torch.autograd.grad(logits[0, target], kept["maps"])
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        expected = torch.relu((weights * kept["maps"]).sum(1))[0].detach().numpy()
        got, used = grad_cam(content, architecture, pixels, target)
        assert used == layer, "the last layer with 7 x 7 cells or more"
        assert got.shape == expected.shape == (size, size)
        assert np.allclose(got, expected / max(expected.max(), 1e-12), atol=1e-4)


@needs_captum
def test_a_finer_layer_is_used_where_the_last_has_too_few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(0)
    model = tiny.build().eval()
    pixels = np.random.default_rng(0).normal(size=(3, 16, 16)).astype(np.float32)
    content = exported(model, pixels)
    assert_cells(content, model, tiny.NAME, pixels, "conv1")  # maxpool has 4 × 4
    monkeypatch.setitem(LAYERS, tiny.NAME, ("maxpool",))
    with pytest.raises(InputError, match=r"At 16 × 16 pixels, maxpool, .* has 4 × 4 cells; .* --image-size 28 or more"):
        grad_cam(content, tiny.NAME, pixels, 0)


@needs_captum
def test_too_few_cells_write_nothing(
    other_formats: Path, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr("stageproof.runtime.explain.gradcam.LEAST", 17)
    out = tmp_path / "out.png"
    assert main([str(other_formats), str(scan), "--trust-code", "--out", str(out)]) == 2
    assert "InputError: At 32 × 32 pixels, conv1, " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def exported(model, pixels: np.ndarray) -> bytes:
    import torch

    file = io.BytesIO()
    torch.export.save(torch.export.export(model, (torch.from_numpy(pixels[None]),)), file)
    return file.getvalue()


def test_heat_lies_where_the_cells_are_hot() -> None:
    heat = np.zeros((4, 4), np.float32)
    heat[0, 3] = 1.0
    right = right_of(Image.new("L", (100, 100), 90), heat)
    changed = np.abs(right - 90).max(axis=2) > 10
    assert changed[: SIDE // 4, 3 * SIDE // 4 :].mean() > 0.9
    assert not changed[SIDE // 2 :, : SIDE // 2].any()


def right_of(image: Image.Image, heat: np.ndarray) -> np.ndarray:
    page = np.asarray(Image.open(io.BytesIO(draw_overlay(image, heat, head(image), ["words"]))).convert("RGB"))
    return page[12 : 12 + SIDE, 24 + SIDE : 24 + 2 * SIDE].astype(int)


def test_the_background_is_not_coloured_and_dark_parts_of_the_head_are(scan: Path) -> None:
    image = read_image(scan)
    inside = head(image)
    y, x = np.mgrid[: image.height, : image.width] / np.array([image.height, image.width])[:, None, None] - 0.5
    radius = np.hypot(y, x)
    assert inside[radius < 0.25].all(), "ventricles are dark and lie in the head"
    assert not inside[radius > 0.6].any()
    black = right_of(image, np.zeros((8, 8), np.float32))
    hot = right_of(image, np.ones((8, 8), np.float32))
    changed = np.asarray(Image.fromarray(np.abs(hot - black).max(axis=2).astype(np.uint8)).resize(image.size)) > 10
    assert not changed[radius > 0.6].any()
    assert changed[radius < 0.25].mean() > 0.95
    corner = np.zeros((8, 8), np.float32)
    corner[0, 0] = 1.0
    assert share_outside(corner, inside) > 0.95
    middle = np.zeros((8, 8), np.float32)
    middle[3:5, 3:5] = 1.0
    assert share_outside(middle, inside) == 0


def test_a_slice_without_dark_background_has_none() -> None:
    for image in (Image.new("L", (20, 30), 255), Image.new("L", (20, 30), 0), Image.new("RGB", (9, 9), "gray")):
        assert head(image).all()
        assert head(image).shape == image.size[::-1]


def test_the_colour_bar_runs_from_bright_to_plain() -> None:
    image = Image.new("L", (100, 100), 90)
    page = Image.open(io.BytesIO(draw_overlay(image, np.zeros((8, 8)), head(image), ["words"])))
    bar = np.asarray(page.convert("RGB"))[12 : 12 + SIDE, 3 * 12 + 2 * SIDE + 4].astype(int)
    light = bar @ [0.299, 0.587, 0.114]
    assert np.ptp(bar[-1]) == 0
    assert np.ptp(bar[0]) > 50
    assert light[0] > light[-1] + 50


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (640, 480)])
def test_any_shape_of_slice_is_drawn(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "gray")
    page = Image.open(io.BytesIO(draw_overlay(image, np.ones((8, 8), np.float32), head(image), ["a", "b " * 200])))
    assert min(page.size) > 20


@needs_captum
def test_what_the_guard_rejects_is_not_explained(other_formats: Path, tmp_path: Path, capsys) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    out = tmp_path / "out.png"
    assert main([str(other_formats), str(tmp_path / "noise.png"), "--trust-code", "--out", str(out)]) == 1
    assert "was rejected: " in capsys.readouterr().err
    assert not out.exists()


@needs_captum
def test_what_it_cannot_do_it_says(bundle: Path, other_formats: Path, scan: Path, tmp_path: Path, capsys) -> None:
    def says(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    out = tmp_path / "out.png"
    trusted = (other_formats, "--trust-code")
    assert "has no float32 .pt2, which Grad-CAM requires for gradients" in says(bundle, scan, "--out", out)
    assert "--to torch-export --out" in says(bundle, scan, "--out", out)
    assert "label is 'Demented', expected one of NonDemented, " in says(
        other_formats, scan, "--label", "Demented", "--out", out
    )
    assert "no such file" in says(*trusted, tmp_path / "none.png", "--out", out)
    assert "does not exist" in says(tmp_path / "no-bundle", scan, "--out", out)
    assert "cannot be written" in says(*trusted, scan, "--out", tmp_path / "no" / "out.png")
    assert list(tmp_path.iterdir()) == []
    out.write_bytes(b"mine")
    assert "exists. Remove it" in says(other_formats, scan, "--out", out)
    assert out.read_bytes() == b"mine"


def test_without_captum_it_says_how_to_get_it(bundle: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stageproof.runtime import BackendUnavailable

    monkeypatch.setattr("runtime.explain.gradcam.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"needs the package torch: pip install 'stageproof\[explain\]'"):
        explain_prediction(bundle, scan)


@needs_captum
def test_a_tampered_bundle_is_refused_first(other_formats: Path, scan: Path, tmp_path: Path, capsys) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(other_formats, copy)
    artifact = copy / "model.pt2"
    artifact.write_bytes(artifact.read_bytes()[:-1] + b"x")
    assert main([str(copy), str(scan), "--out", str(tmp_path / "out.png")]) == 2
    assert "changed after export" in capsys.readouterr().err
