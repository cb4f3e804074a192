"""Which series is read, which are passed over and why, and whom and what the gate refuses."""

from __future__ import annotations

import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime.errors import VolumeError
from stageproof.runtime.volume.gate import Population, check_age, check_content
from stageproof.runtime.volume.reader import read_volume
from stageproof.runtime.volume.rules import PREFERENCES, REQUIREMENTS
from stageproof.runtime.volume.statuses import STATUSES
from stageproof.runtime.volume.study import open_study, volume_of
from stageproof.runtime.volume.volume import SeriesFacts, Volume
from stageproof.train.data.phantom.series import dicom_bytes, dicom_enhanced, nifti_bytes
from tests.volumes import head, part, written

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "t1_series" / "series.tar.xz"


def series(path: Path, name: str = "phantom", keep: tuple[slice, ...] = (), **headers: object) -> Path:
    """One enhanced file of the head, or of a part of it, with other headers."""
    phantom = part(head(), keep) if keep else head()
    path.write_bytes(dicom_bytes(dicom_enhanced(phantom, name, **headers)))
    return path


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return volume_of(open_study(series(tmp_path_factory.mktemp("volume") / "head.dcm")))


UNNAMED = {"SeriesDescription": "head"}
HEADERS = {
    "CT": ({"Modality": "CT"}, "modality", "its modality is CT"),
    "no modality": ({"Modality": None}, "modality", "its modality is not stated"),
    "T2 by name": ({"SeriesDescription": "t2_tse_tra"}, "not_t1", r"names another contrast \(t2\)"),
    "FLAIR by name": ({"SeriesDescription": "FLAIR_sag_3D"}, "not_t1", r"\(flair\)"),
    "T2 by echo time": ({**UNNAMED, "EchoTime": 98.0}, "not_t1", "its echo time is 98 ms"),
    "proton density by timing": (
        {**UNNAMED, "ScanningSequence": "SE", "RepetitionTime": 2500.0, "InversionTime": None},
        "not_t1",
        "a spin echo with a repetition time of 2500 ms",
    ),
    "contrast of an enhanced file": ({"AcquisitionContrast": "T2"}, "not_t1", "AcquisitionContrast is T2"),
    "echo-planar": ({**UNNAMED, "ScanningSequence": "EP"}, "not_t1", "echo-planar"),
    "a phase image": ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "not_t1", r"a phase image \(P\)"),
    "a localizer by type": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer", "it is a localizer"),
    "a localizer by name": ({"SeriesDescription": "AAHead_Scout t1"}, "localizer", "it is a localizer"),
    "2D": ({"MRAcquisitionType": "2D"}, "not_3d", "a 2D acquisition"),
    "nothing stated": (
        {**UNNAMED, "ScanningSequence": None, "MRAcquisitionType": None},
        "unknown_contrast",
        "assume_t1=True",
    ),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_series_of_another_kind_is_refused_by_its_headers(tmp_path, case):
    headers, status, message = HEADERS[case]
    with pytest.raises(VolumeError, match=message) as caught:
        read_volume(series(tmp_path / "head.dcm", **headers))
    assert caught.value.status == status


def test_timing_alone_can_say_t1_and_the_caller_too(tmp_path):
    assert open_study(series(tmp_path / "timing.dcm", **UNNAMED)).chosen().refusal is None
    silent = series(tmp_path / "silent.dcm", **{**UNNAMED, "ScanningSequence": None})
    assert volume_of(open_study(silent, assume_t1=True)).notes == ("T1 weighting was assumed by the caller",)
    wrong = series(tmp_path / "wrong.dcm", SeriesDescription="t2")
    with pytest.raises(VolumeError, match="names another contrast"):
        open_study(wrong, assume_t1=True).chosen()


PARTS = {
    "every second slice of 2.5 mm": ((slice(None), slice(None), slice(None, None, 2)), "not_3d", "5.0 mm apart"),
    "a few slices": ((slice(None), slice(None), slice(20, 50)), "not_3d", "it has 30 slices"),
    "the left half": ((slice(None), slice(None), slice(0, 40)), "field_of_view", "width is 100 mm"),
    "one side cut": ((slice(None), slice(None), slice(0, 52)), "truncated", "left plane"),
    "the top cut by 3 cm": ((slice(None), slice(18, None), slice(None)), "truncated", "top plane"),
    "the face cut": ((slice(24, None), slice(None), slice(None)), "truncated", "front plane"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_part_of_a_head_is_refused(tmp_path, case):
    keep, status, message = PARTS[case]
    with pytest.raises(VolumeError, match=message) as caught:
        read_volume(series(tmp_path / "head.dcm", keep=keep))
    assert caught.value.status == status


def test_thick_gaps_between_thin_slices_are_refused(tmp_path):
    thin = tmp_path / "thin"
    with pytest.raises(VolumeError, match=r"1 mm thick and 2\.50 mm apart") as caught:
        read_volume(written(thin, head(), SliceThickness="1.0"))
    assert caught.value.status == "not_3d"


def test_a_head_that_fills_its_volume_normally_passes_and_a_neck_is_allowed(volume):
    check_content(volume)
    assert volume.voxels[:, :, 0].max() > 200  # tissue at the bottom


@pytest.mark.parametrize(
    ("fill", "message"), [(np.nan, "not finite"), (7.0, "the same value nearly everywhere")], ids=["NaN", "constant"]
)
def test_values_without_signal_are_refused(volume, fill, message):
    voxels = np.full_like(volume.voxels, 7.0)
    voxels[3, 3, 3] = fill
    with pytest.raises(VolumeError, match=message) as caught:
        check_content(replace(volume, voxels=voxels))
    assert caught.value.status == "no_signal"


SEVENTY = Population(60.0, 90.0, "the training data: 60 to 90 years")


@pytest.mark.parametrize(
    ("stated", "given", "population", "status", "message"),
    [
        (3.0, None, Population(), "age_outside_population", "3 years old; the model is for 18 or more years"),
        (17.9, None, Population(), "age_outside_population", "population unknown"),
        (55.0, None, SEVENTY, "age_outside_population", "for 60 to 90 years"),
        (91.0, None, SEVENTY, "age_outside_population", "the training data"),
        (None, 3.0, Population(), "age_outside_population", "3 years old"),
        (None, None, Population(), "age_unknown", "Pass age=YEARS"),
        (71.0, 45.0, Population(), "age_conflict", "states an age of 71 years, the caller 45"),
        (None, -1.0, Population(), "age_conflict", "expected 0 to 130"),
    ],
)
def test_the_age_must_be_known_and_within_the_population(volume, stated, given, population, status, message):
    one = replace(volume, facts=replace(volume.facts, age=stated))
    with pytest.raises(VolumeError, match=message) as caught:
        check_age(one, given, population)
    assert caught.value.status == status


def test_a_known_age_is_returned_and_an_unknown_one_only_if_allowed(volume):
    assert check_age(volume) == 71.0
    assert check_age(volume, 71.5, SEVENTY) == 71.0
    silent = replace(volume, facts=replace(volume.facts, age=None))
    assert check_age(silent, 64.0) == 64.0
    assert check_age(silent, allow_unknown=True) is None
    child = replace(volume, facts=replace(volume.facts, age=3.0))
    with pytest.raises(VolumeError, match="3 years old"):
        check_age(child, allow_unknown=True)  # allowing an unknown age does not allow a child's


def test_a_child_of_three_is_refused_from_the_file(tmp_path):
    with pytest.raises(VolumeError, match="3 years old"):
        read_volume(series(tmp_path / "head.dcm", PatientAge="003Y"))
    with pytest.raises(VolumeError, match="is not stated"):
        read_volume(series(tmp_path / "silent.dcm", PatientAge=None))


def test_of_a_study_the_t1_is_read_and_the_others_are_named(tmp_path):
    crown = (slice(None), slice(0, 40), slice(None))

    def add(name: str, keep: tuple[slice, ...] = (), **headers: object) -> None:
        # The UIDs of one study; a series identifier of its own.
        uid = f"1.2.3.{len(list(tmp_path.iterdir()))}"
        series(tmp_path / f"{name}.dcm", keep=keep, SeriesInstanceUID=uid, **headers)

    add("a", SeriesDescription="t2_flair")
    add("b", SeriesDescription="localizer", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    add("c", SeriesDescription="t1_mprage_gd")
    add("d", SeriesDescription="t1_mprage mpr", ImageType=["DERIVED", "SECONDARY", "MPR"])
    add("e", SeriesDescription="t1_mprage")
    add("f", SeriesDescription="t1_mprage few", keep=(*crown[:2], slice(0, 60)))
    (tmp_path / "report.txt").write_text("text")
    study = open_study(tmp_path)
    assert "(t1_mprage, 74 images)" in study.chosen().name
    lines = study.explain()
    assert sum(line.startswith("read: ") for line in lines) == 1
    for words in (
        r"passed over: .*t2_flair.*: not_t1: ",
        r"passed over: .*localizer.*: localizer: ",
        r"passed over: .*t1_mprage_gd.* is preferred: no contrast agent named",
        r"passed over: .*mpr, 74 images.* is preferred: original, not derived",
        r"passed over: .*few.* is preferred: more slices",
        r"skipped: 1 text",
    ):
        assert any(re.match(words, line) for line in lines), (words, lines)
    assert len(volume_of(study).notes) == len(lines) - 1


def test_a_study_without_a_t1_lists_every_series(tmp_path):
    series(tmp_path / "a.dcm", SeriesDescription="t2", SeriesInstanceUID="1.2.3")
    series(tmp_path / "b.dcm", SeriesDescription="scout", SeriesInstanceUID="1.2.4")
    with pytest.raises(VolumeError, match=r"none of 2 series.*scout.*t2") as caught:
        read_volume(tmp_path)
    assert caught.value.status == "not_t1"


def test_of_two_nifti_files_none_is_chosen(tmp_path):
    for subject in ("sub-1", "sub-2"):
        (tmp_path / f"{subject}_T1w.nii.gz").write_bytes(nifti_bytes(head()))
    with pytest.raises(VolumeError, match="2 files could be meant") as caught:
        read_volume(tmp_path, age=70)
    assert caught.value.status == "ambiguous"
    (tmp_path / "sub-2_T1w.nii.gz").rename(tmp_path / "sub-1_T2w.nii.gz")
    assert any("another contrast" in note for note in read_volume(tmp_path, age=70).notes)


def test_a_sidecar_states_what_a_nifti_file_cannot(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(nifti_bytes(head()))
    with pytest.raises(VolumeError, match="neither its description nor its timing"):
        read_volume(path, age=70)
    path.with_name("scan.json").write_text('{"SeriesDescription": "MPRAGE", "EchoTime": 0.003}', encoding="utf-8")
    assert read_volume(path, age=70).facts.echo_time == pytest.approx(3.0)
    path.with_name("scan.json").write_text('{"SeriesDescription": "MPRAGE", "EchoTime": 0.09}', encoding="utf-8")
    with pytest.raises(VolumeError, match="its echo time is 90 ms"):
        read_volume(path, age=70)
    path.with_name("scan.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(VolumeError, match="not a JSON object"):
        read_volume(path, age=70)


def test_every_status_is_in_the_table_and_none_is_left_over():
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "runtime/volume").glob("*.py")))
    raised = set(re.findall(r"VolumeError\(\s*\"(\w+)\"", text)) | {one.status for one in REQUIREMENTS}
    assert raised == set(STATUSES)
    page = (ROOT / "docs/volumes.md").read_text(encoding="utf-8")
    for status, meaning in STATUSES.items():
        assert f"| `{status}` | {meaning} |" in page
    for words in (*(one.words for one in REQUIREMENTS), *(one.words for one in PREFERENCES)):
        assert words in page


def test_facts_without_a_header_are_unknown_and_not_good():
    assert SeriesFacts().modality is None
    assert SeriesFacts().age is None


@pytest.mark.slow
def test_a_real_head_is_read_and_accepted(tmp_path):
    if not REAL.exists():
        pytest.skip("the real head is not beside this checkout (../shared/t1_series)")
    with tarfile.open(REAL) as archive:
        archive.extractall(tmp_path, filter="data")
    real = read_volume(tmp_path / "dicoms")
    assert real.voxels.shape == (274, 384, 384)
    assert real.facts.age == 42.0
    assert real.spacing == pytest.approx((0.7, 0.667, 0.667), abs=0.001)
