"""One volume from every way to store a head: the same voxels at the same places, or a refusal with its own status."""

from __future__ import annotations

import gzip
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime.errors import ImageError, InputError, VolumeError
from stageproof.runtime.volume import files
from stageproof.runtime.volume.headers import age_years, read_header
from stageproof.runtime.volume.nifti import sidecar_facts
from stageproof.runtime.volume.reader import read_volume
from stageproof.runtime.volume.stacking import stack
from stageproof.runtime.volume.study import open_study, volume_of
from stageproof.runtime.volume.volume import Volume
from stageproof.train.data.phantom.series import dicom_bytes, dicom_enhanced, dicom_slices, nifti_bytes
from tests.volumes import head, part, stored, written, zipped

OBLIQUE = {"turn": (17.0, -9.0, 12.0), "spacing": (2.5, 2.0, 2.3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("series") / "dicom", head())


@pytest.fixture(scope="module")
def volume(folder: Path) -> Volume:
    return read_volume(folder)


def equal(one: Volume, other: Volume) -> bool:
    return np.array_equal(one.voxels, other.voxels) and np.allclose(one.affine, other.affine, atol=1e-4)


def test_the_voxels_are_in_ras_order_at_the_places_of_the_phantom(volume):
    phantom = head()
    assert volume.voxels.dtype == np.float32
    assert volume.voxels.flags.c_contiguous
    assert volume.stored_axes == "PIR"  # slices are ordered along the normal of their planes
    assert volume.spacing == pytest.approx((2.5, 2.5, 2.5))
    assert (np.diag(volume.affine)[:3] > 0).all()
    rng = np.random.default_rng(0)
    for index in rng.integers(0, phantom.voxels.shape, (50, 3)):
        place = phantom.affine @ [*index, 1.0]
        x, y, z = np.rint((np.linalg.inv(volume.affine) @ place)[:3]).astype(int)
        assert volume.voxels[x, y, z] == phantom.voxels[tuple(index)]
    assert volume.facts.age == 71.0
    assert volume.facts.echo_time == 2.98
    assert volume.notes == ()


def test_the_same_volume_however_it_is_stored(tmp_path, folder, volume):
    phantom = head()
    files = sorted(folder.iterdir())
    for number, file in enumerate(files):
        half = tmp_path / f"half-{number % 2}"
        half.mkdir(exist_ok=True)
        (half / file.name).write_bytes(file.read_bytes())
    (tmp_path / "nifti").mkdir()
    nifti = tmp_path / "nifti" / "sub-1_T1w.nii.gz"
    nifti.write_bytes(nifti_bytes(phantom))
    plain = tmp_path / "nifti" / "plain" / "sub-1_T1w.nii"
    plain.parent.mkdir()
    plain.write_bytes(gzip.decompress(nifti_bytes(stored(phantom, (2, 0, 1), (1,)))))
    enhanced = tmp_path / "enhanced.dcm"
    enhanced.write_bytes(dicom_bytes(dicom_enhanced(stored(phantom, (0, 1, 2), (2,)))))
    ways = {
        "list of paths, reversed": files[::-1],
        "two folders": [tmp_path / "half-1", tmp_path / "half-0"],
        "zip": zipped(tmp_path / "series.zip", folder),
        "enhanced, frames reversed": enhanced,
        "coronal": written(tmp_path / "coronal", stored(phantom, (2, 1, 0))),
        "axial, flipped": written(tmp_path / "axial", stored(phantom, (2, 0, 1), (0, 2))),
        "instance numbers that lie": written(tmp_path / "numbers", phantom, InstanceNumber=1),
        "NIfTI": nifti,
        "NIfTI, permuted": plain,
    }
    read = {name: read_volume(source, allow_unknown_age="NIfTI" in name) for name, source in ways.items()}
    assert [name for name, one in read.items() if not equal(one, volume)] == []


@pytest.mark.parametrize("way", ["dicom", "enhanced", "nifti"])
def test_an_oblique_scan_keeps_its_places(tmp_path, way):
    phantom = head(**OBLIQUE)
    path = tmp_path / ("head_T1w.nii.gz" if way == "nifti" else "head")
    if way == "nifti":
        path.write_bytes(nifti_bytes(phantom))
    elif way == "enhanced":
        path.write_bytes(dicom_bytes(dicom_enhanced(phantom)))
    else:
        written(path, phantom)
    read = volume_of(open_study(path))
    index = np.array([40, 30, 20])
    x, y, z = np.rint((np.linalg.inv(read.affine) @ phantom.affine @ [*index, 1.0])[:3]).astype(int)
    assert read.voxels[x, y, z] == phantom.voxels[tuple(index)]
    corner = np.linalg.inv(read.affine) @ phantom.affine @ [0, 0, 0, 1.0]
    assert np.allclose(corner, np.rint(corner), atol=1e-3)  # the same grid, to a thousandth of a voxel
    assert abs(read.affine[0, 1]) > 0.2  # and still oblique


def test_a_sheared_stack_is_placed_by_its_positions():
    phantom = head()
    frames = []
    for made in dicom_slices(phantom):
        header = read_header(dicom_bytes(made), "x")
        frames += list(header.frames)
    for number, frame in enumerate(sorted(frames, key=lambda one: one.position[0])):
        frame.position[2] += 0.4 * number  # as a gantry tilt does
    sheared = stack(frames)
    step = sheared.affine[:3, 2]
    assert abs(step[2]) == pytest.approx(0.4, abs=1e-6)
    assert abs(step[0]) == pytest.approx(2.5, abs=1e-6)


def test_scaling_of_each_slice_is_applied(tmp_path):
    """Philips writes another slope for each slice."""
    phantom = head()
    folder = tmp_path / "scaled"
    folder.mkdir()
    for k, made in enumerate(dicom_slices(phantom)):
        made.RescaleSlope, made.RescaleIntercept = 0.5 + k % 3, -10
        (folder / f"{k}.dcm").write_bytes(dicom_bytes(made))
    read = read_volume(folder)
    # Slices are stored to the left, so that the last of them is the first in RAS order.
    last = phantom.voxels.shape[2] - 1
    expected = phantom.voxels[::-1, ::-1, last].T * (0.5 + last % 3) - 10.0
    assert np.allclose(read.voxels[0], expected.T.reshape(read.voxels[0].shape))


def moved(folder: Path, change, only=lambda k: True) -> Path:
    """A series with `change(dataset, k)` applied to some slices."""
    folder.mkdir()
    for k, made in enumerate(dicom_slices(head())):
        if only(k) and change(made, k) is None:
            (folder / f"{k:03d}.dcm").write_bytes(dicom_bytes(made))
    return folder


def shift(made, k):
    x, y, z = map(float, made.ImagePositionPatient)
    made.ImagePositionPatient = [x + (1.2 if k == 30 else 0.0), y, z]


def wander(made, k):
    x, y, z = map(float, made.ImagePositionPatient)
    made.ImagePositionPatient = [x, y + (4.0 if k > 30 else 0.0), z]


def turn_one(made, k):
    if k == 5:
        made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def no_position(made, k):
    del made.ImagePositionPatient


def skewed(made, k):
    made.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]


GEOMETRY = {
    "a slice in the middle is missing": (
        lambda made, k: k == 30 or None,
        "slice_gap",
        "1 slices are missing in 1 gaps",
    ),
    "every slice after the 20th but two": (lambda made, k: 20 < k < 40 or None, "slice_gap", "19 slices are missing"),
    "one slice is shifted along the normal": (shift, "irregular_spacing", "expected equal ones"),
    "half of the slices are shifted in their plane": (wander, "irregular_spacing", "away from equally spaced"),
    "one slice is turned": (turn_one, "mixed_geometry", "as those of a localizer"),
    "no positions": (no_position, "geometry_missing", "no ImagePositionPatient"),
    "directions that are not perpendicular": (skewed, "geometry_missing", "two perpendicular directions"),
}


@pytest.mark.parametrize("case", GEOMETRY)
def test_a_series_without_regular_geometry_is_refused(tmp_path, case):
    change, status, message = GEOMETRY[case]
    with pytest.raises(VolumeError, match=message) as caught:
        read_volume(moved(tmp_path / "series", change))
    assert caught.value.status == status


def test_copies_of_slices_are_refused_and_not_averaged_or_dropped(tmp_path):
    folder = written(tmp_path / "series", head())
    file = next(folder.iterdir())
    (folder / "copy.dcm").write_bytes(file.read_bytes())
    with pytest.raises(VolumeError, match="1 of 75 slices are at the position of another one") as caught:
        read_volume(folder)
    assert caught.value.status == "duplicate_slices"


def test_two_heads_in_one_folder_are_refused(tmp_path):
    written(tmp_path / "one", head(), "one", PatientID="1")
    few = part(head(), (slice(None), slice(None), slice(0, 50)))
    written(tmp_path / "two", few, "one", PatientID="2")  # under the same identifiers of study and series
    with pytest.raises(VolumeError, match="2 studies of 2 patients") as caught:
        read_volume(tmp_path)
    assert caught.value.status == "several_studies"
    assert open_study(tmp_path / "one").chosen().refusal is None


def test_a_damaged_slice_is_an_error_and_not_a_gap_that_nobody_sees(tmp_path):
    folder = written(tmp_path / "series", head())
    file = sorted(folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-500])
    with pytest.raises(ImageError, match="truncated"):
        read_volume(folder)


def test_no_message_quotes_the_patient(tmp_path, capfd, caplog):
    folder = written(tmp_path / "series", head(), PatientName="SECRET^NAME", PatientID="SECRET7", EchoTime=None)
    content = bytearray(sorted(folder.iterdir())[0].read_bytes())
    start = content.index(b"SECRET")
    shown = []
    for offset in range(start - 12, start + 4):
        damaged = content.copy()
        damaged[offset] ^= 0x55
        file = tmp_path / "damaged.dcm"
        file.write_bytes(damaged)
        try:
            shown.append(repr(volume_of(open_study(file, assume_t1=True)).facts))
        except InputError as error:
            shown.append(str(error))
    captured = capfd.readouterr()
    assert len(shown) == 16
    assert "SECRET" not in "".join(shown) + captured.out + captured.err + caplog.text


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("071Y", 71.0),
        ("018M", 1.5),
        ("003Y", 3.0),
        ("42", 42.0),
        ("052W", 1.0),
        ("", None),
        ("abc", None),
        ("71YY", None),
    ],
)
def test_ages_have_units(text, years):
    assert age_years(text) == (None if years is None else pytest.approx(years, abs=0.01))


def altered(offset: int, form: str, *values: float) -> bytes:
    """An uncompressed NIfTI of the head with some bytes of its header replaced."""
    content = bytearray(gzip.decompress(nifti_bytes(head())))
    struct.pack_into(form, content, offset, *values)
    return bytes(content)


PARALLEL = (2, 2, 0, 0, 2, 2, 0, 0, 0, 0, 2, 0)
NIFTI = {
    "no orientation": (lambda: altered(252, "<hh", 0, 0), "geometry_missing", "states no orientation"),
    "an affine of NaN": (lambda: altered(280, "<f", float("nan")), "geometry_missing", "0.05 and 20 mm"),
    "two parallel axes": (
        lambda: altered(280, "<12f", 2, 2, 0, 0, 2, 2, 0, 0, 0, 0, 2, 0),
        "geometry_missing",
        "not independent",
    ),
    "2^45 voxels": (lambda: altered(40, "<4h", 3, 32767, 32767, 32767), "unreadable", "at most 67108864 voxels"),
    "negative sizes": (lambda: altered(40, "<4h", 3, -5, 5, 5), "unreadable", "three dimensions of 2 or more"),
    "two volumes": (lambda: altered(40, "<5h", 4, 45, 45, 37, 2), "unreadable", "Pass one 3D volume"),
    "colour": (lambda: altered(70, "<h", 128), "unreadable", "integers or floats"),
    "an unknown type": (lambda: altered(70, "<h", 77), "unreadable", "damaged NIfTI header"),
    "voxels before the header's end": (lambda: altered(108, "<f", 8.0), "unreadable", "vox_offset"),
    "voxels beyond all limits": (lambda: altered(108, "<f", 1e18), "unreadable", "vox_offset"),
    "cut off": (lambda: altered(70, "<h", 512)[:-1000], "unreadable", "is truncated"),
    "cut off, gzipped": (lambda: nifti_bytes(head())[:-5000], "unreadable", "is truncated"),
}


@pytest.mark.parametrize("case", NIFTI)
def test_a_bad_nifti_header_is_refused(tmp_path, case):
    make, status, message = NIFTI[case]
    path = tmp_path / "sub-1_T1w.nii"
    path.write_bytes(make())
    with pytest.raises(VolumeError, match=message) as caught:
        read_volume(path, allow_unknown_age=True)
    assert caught.value.status == status


def test_a_gzip_bomb_is_inflated_as_far_as_its_header_declares(tmp_path):
    resource = pytest.importorskip("resource", reason="measures memory on POSIX")
    plain = gzip.decompress(nifti_bytes(head()))
    bomb = gzip.compress(plain + bytes(1 << 27), compresslevel=1)
    path = tmp_path / "sub-1_T1w.nii.gz"
    path.write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = read_volume(path, allow_unknown_age=True)
    assert read.voxels.size == head().voxels.size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KiB


def test_scaling_of_a_nifti_file_is_applied(tmp_path):
    path = tmp_path / "sub-1_T1w.nii"
    path.write_bytes(altered(112, "<ff", 2.0, 5.0))
    scaled = read_volume(path, age=70)
    path.write_bytes(altered(112, "<ff", 0.0, 0.0))  # a slope of 0 means none (NIfTI-1)
    assert np.array_equal(scaled.voxels, read_volume(path, age=70).voxels * 2.0 + 5.0)


def test_an_archive_is_read_within_its_stated_sizes(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1 << 20)  # the real limit takes seconds to reach
    lying = tmp_path / "lying.zip"
    with zipfile.ZipFile(lying, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.dcm", bytes(2 << 20))
    with pytest.raises(VolumeError, match="has more than 1048576 bytes") as caught:
        open_study(lying)
    assert caught.value.status == "unreadable"
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(zipped(tmp_path / "good.zip", folder).read_bytes()[:-300])
    with pytest.raises(VolumeError, match="damaged zip archive"):
        open_study(damaged)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", r"no file is a DICOM or NIfTI image \(found 1 "),
        ("empty.dcm", b"", "is empty"),
        ("x.nii.gz", b"\x1f\x8b" + bytes(50), "no file is a DICOM or NIfTI"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VolumeError, match=message) as caught:
        read_volume(tmp_path)
    assert caught.value.status == "unreadable"


@pytest.mark.parametrize("source", ["nowhere", 7, b"bytes"])
def test_a_source_that_is_none_is_refused(source):
    with pytest.raises(VolumeError, match=r"no such file or folder|expected the path"):
        read_volume(source)


def test_importing_the_module_imports_no_optional_package():
    """In this process others have imported them: look at what the modules' own text imports at the top."""
    import subprocess

    script = (
        "import sys, runtime.volume.reader; "
        "print(sorted({'nibabel', 'SimpleITK', 'pydicom', 'torch', 'scipy', 'onnxruntime'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_values_beyond_single_precision_are_refused_without_a_warning(tmp_path):
    path = tmp_path / "sub-1_T1w.nii"
    path.write_bytes(altered(112, "<ff", 1e37, 0.0))
    with pytest.raises(VolumeError, match="not finite"):
        read_volume(path, age=70)
    huge = tmp_path / "huge.dcm"
    made = dicom_enhanced(head())
    made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleSlope = "1e37"
    huge.write_bytes(dicom_bytes(made))
    with pytest.raises(VolumeError, match="not finite"):
        read_volume(huge)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_a_damaged_header_is_never_another_exception(tmp_path, kind):
    """350 files with one to three other bytes in the header: a volume with a finite affine, or an InputError."""
    rng = np.random.default_rng(1)
    if kind == "dicom":
        content, first, last = dicom_bytes(dicom_enhanced(head())), 132, 9000
    else:
        content, first, last = gzip.decompress(nifti_bytes(head())), 0, 352
    path = tmp_path / ("a.dcm" if kind == "dicom" else "a_T1w.nii")
    refused = 0
    for _ in range(350):
        damaged = bytearray(content)
        for place in rng.integers(first, last, rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            assert np.isfinite(volume_of(open_study(path)).affine).all()
        except InputError:
            refused += 1
    assert refused > 30


def test_only_the_name_of_a_nifti_file_itself_counts(tmp_path):
    for folder, name, expected in (("study_t1", "scan", ""), ("t2_flair", "sub-1_T1w", "T1w")):
        path = tmp_path / folder / f"{name}.nii.gz"
        assert sidecar_facts(path, str(path)).description == expected
    assert sidecar_facts(None, f"{tmp_path}/x_t1.zip: a_b/scan.nii").description == ""


@pytest.mark.parametrize("written", ["GR_IR", "GR\\IR", ["GR", "IR"]])
def test_the_codes_of_a_sidecar_as_converters_write_them(tmp_path, written):
    (tmp_path / "scan.json").write_text(json.dumps({"ScanningSequence": written, "ProtocolName": "brain"}))
    facts = sidecar_facts(tmp_path / "scan.nii", "scan.nii")
    assert facts.sequence == ("GR", "IR")
    assert facts.description == "brain"


def test_a_lost_file_of_a_series_is_refused(tmp_path):
    (tmp_path / "001.dcm").symlink_to(tmp_path / "gone")
    with pytest.raises(VolumeError, match="cannot be read, and may have slices of the series"):
        files.source_files(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_would_unpack_without_limit(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("001.dcm", bytes(1 << 20))
    with pytest.raises(VolumeError, match="packed by another method than deflate"):
        files.source_files(tmp_path / "a.zip")
