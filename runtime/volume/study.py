"""`open_study`: the series of a folder, list or archive, and which of them is read as the T1-weighted volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import ImageError, VolumeError
from stageproof.runtime.headers.signatures import HEAD, is_dicom
from stageproof.runtime.images.folders import kind_of_other
from stageproof.runtime.volume.dicom_series import DicomSeries, group_series
from stageproof.runtime.volume.files import SourceFile, source_files
from stageproof.runtime.volume.headers import FileHeader, read_header
from stageproof.runtime.volume.nifti import is_nifti, nifti_layout, nifti_voxels, sidecar_facts
from stageproof.runtime.volume.rules import PREFERENCES, REQUIREMENTS
from stageproof.runtime.volume.stacking import Stack
from stageproof.runtime.volume.volume import SeriesFacts, Volume, to_ras

if TYPE_CHECKING:
    from numpy.typing import NDArray

Voxels = tuple["NDArray[np.float32]", "NDArray[np.float64]"]


@dataclass(frozen=True)
class Candidate:
    """One series of a study, and whether it can be the volume."""

    name: str
    """For messages: what it is called and how many images it has, without identifiers."""
    source: str
    facts: SeriesFacts
    stack: Stack | None
    refusal: VolumeError | None
    """Why it is passed over; None if it meets all requirements."""
    voxels: Callable[[], Voxels]
    """Reads voxels and affine. Raises ImageError and VolumeError."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """The result of `open_study`."""

    candidates: tuple[Candidate, ...]
    """Those that meet the requirements first, in the order of the preferences."""
    skipped: tuple[str, ...]
    """Files that are no image series, by kind."""

    def chosen(self) -> Candidate:
        """The preferred series. Raises VolumeError: its own reason if one series was refused, else a list of them."""
        good = [one for one in self.candidates if one.refusal is None]
        if not good and len(self.candidates) == 1:
            assert self.candidates[0].refusal is not None
            raise self.candidates[0].refusal
        if not good:
            statuses = Counter(one.refusal.status for one in self.candidates if one.refusal is not None)
            listed = "; ".join(f"{one.name}: {one.refusal}" for one in self.candidates[:8])
            raise VolumeError(
                next(iter(statuses)) if len(statuses) == 1 else "not_t1",
                f"none of {len(self.candidates)} series is a T1-weighted 3D series. {listed}",
            )
        if len(good) > 1 and "nifti" in {one.source for one in good}:
            raise VolumeError(
                "ambiguous",
                f"{len(good)} files could be meant ({', '.join(one.name for one in good[:4])}), and NIfTI files do not "
                "say whether they are of one patient. Pass one of them.",
            )
        return good[0]

    def explain(self) -> list[str]:
        """Lines of text: every series, whether it is read, or why it is passed over."""
        good = [one for one in self.candidates if one.refusal is None]
        lines = []
        for one in self.candidates:
            if one.refusal is not None:
                lines.append(f"passed over: {one.name}: {one.refusal.status}: {one.refusal}")
            elif one is good[0]:
                lines.append(f"read: {one.name}")
            else:
                lines.append(f"passed over: {one.name}: {_preferred(good[0], one)}")
        return lines + [f"skipped: {words}" for words in self.skipped]


_MAX_FRAMES = 100_000
"""Limit on the images of a study: the geometry of each is in memory before any pixel is read."""


def open_study(source: Any, *, assume_t1: bool = False) -> Study:
    """The series in `source`: a folder, zip archive or file, or an iterable of paths. Reads headers, and no pixels.

    assume_t1: accept a series whose headers do not say that it is T1-weighted; if they say otherwise, it is refused.

    Raises VolumeError (``unreadable``, ``several_studies``), and DependencyError without the extra `volume`.
    """
    require("volume", "nibabel", "pydicom")
    headers: list[tuple[SourceFile, FileHeader]] = []
    candidates: list[Candidate] = []
    skipped: Counter[str] = Counter()
    damaged: list[str] = []
    frames = 0
    for file in source_files(source):
        try:
            data = file.read()
            if is_dicom(data):
                header = read_header(data, repr(file.name))
                if header is None:
                    skipped["DICOM without an image"] += 1
                else:
                    headers.append((file, header))
                    frames += len(header.frames)
                    if frames > _MAX_FRAMES:
                        raise VolumeError("unreadable", f"more than {_MAX_FRAMES} images; pass one study.")
            elif is_nifti(data[:HEAD]):
                candidates.append(_nifti_candidate(file, data, assume_t1=assume_t1))
            else:
                skipped[kind_of_other(file.name, lambda data=data: data[:HEAD]) or "images"] += 1  # type: ignore[misc]
        except ImageError as error:
            damaged.append(str(error))
    if damaged:
        # A damaged slice must not become a gap that nobody sees.
        raise VolumeError("unreadable", f"{damaged[0]}{f' ({len(damaged)} files in all)' if len(damaged) > 1 else ''}")
    candidates += [_dicom_candidate(series, assume_t1=assume_t1) for series in _grouped(headers)]
    words = tuple(f"{count} {kind}" for kind, count in sorted(skipped.items()))
    if not candidates:
        found = f" (found {', '.join(words)})" if words else ""
        raise VolumeError(
            "unreadable",
            f"no file is a DICOM or NIfTI image{found}. Pass the folder, zip or list of the files of a series, or a "
            ".nii.gz file.",
        )
    ranked = sorted(candidates, key=_order)
    return Study(tuple(ranked), words)


def volume_of(study: Study) -> Volume:
    """The voxels of the chosen series, in RAS order, with notes of what was passed over. Raises as `Study.chosen`."""
    chosen = study.chosen()
    voxels, affine = chosen.voxels()
    turned, affine, axes = to_ras(voxels, affine)
    others = tuple(line for line in study.explain() if not line.startswith("read: "))
    return Volume(turned, affine, chosen.facts, chosen.source, axes, (*chosen.notes, *others))


def _grouped(headers: list[tuple[SourceFile, FileHeader]]) -> list[DicomSeries]:
    studies = {(header.patient, header.study) for _, header in headers}
    if len(studies) > 1:
        patients = len({header.patient for _, header in headers})
        raise VolumeError(
            "several_studies",
            f"the files are of {len(studies)} studies of {patients} patient{'s' if patients > 1 else ''}; expected one "
            "study. Pass the files of one.",
        )
    return group_series(headers)


def _dicom_candidate(series: DicomSeries, *, assume_t1: bool) -> Candidate:
    stack, refusal = series.stacked()
    if stack is not None:
        refusal = _refusal(series.facts, stack, assume_t1=assume_t1)
    elif series.facts.modality != "MR" or "LOCALIZER" in series.facts.image_type:
        refusal = _refusal(series.facts, None, assume_t1=assume_t1) or refusal
    notes = ("T1 weighting was assumed by the caller",) if assume_t1 else ()

    def voxels() -> Voxels:
        assert stack is not None
        return series.voxels(stack), stack.affine

    return Candidate(series.name, "dicom", series.facts, stack, refusal, voxels, notes)


def _nifti_candidate(file: SourceFile, data: bytes, *, assume_t1: bool) -> Candidate:
    where = repr(file.name)
    facts = sidecar_facts(file.path, file.name)
    stack: Stack | None = None
    refusal: VolumeError | None = None
    notes: tuple[str, ...] = ()
    try:
        layout = nifti_layout(data, where)
        notes = layout.notes
        stack = Stack(
            tuple(range(layout.shape[2])), layout.affine, layout.shape, float(np.linalg.norm(layout.affine[:3, 2]))
        )
        refusal = _refusal(facts, stack, assume_t1=assume_t1)
    except VolumeError as error:
        refusal = error

    def read() -> Voxels:
        data = file.read()
        again = nifti_layout(data, where)
        return nifti_voxels(data, again, where), again.affine

    name = f"{where}{f' ({facts.description})' if facts.description else ''}"
    assumed = ("T1 weighting was assumed by the caller",) if assume_t1 else ()
    return Candidate(name, "nifti", facts, stack, refusal, read, (*notes, *assumed))


def _refusal(facts: SeriesFacts, stack: Stack | None, *, assume_t1: bool) -> VolumeError | None:
    for requirement in REQUIREMENTS:
        if stack is None and requirement.status not in ("modality", "localizer"):
            break
        if assume_t1 and requirement.status == "unknown_contrast":
            continue
        problem = requirement.problem(facts, stack)  # type: ignore[arg-type]
        if problem is not None:
            return VolumeError(
                requirement.status,
                f"this series is refused: {problem}. Pass a T1-weighted 3D series of the head"
                + (", or assume_t1=True if it is one." if requirement.status == "unknown_contrast" else "."),
            )
    return None


def _order(candidate: Candidate) -> tuple[bool, tuple[float, ...], str]:
    if candidate.refusal is not None or candidate.stack is None:
        return True, (), candidate.name
    stack = candidate.stack
    return False, tuple(-one.rank(candidate.facts, stack) for one in PREFERENCES), candidate.name


def _preferred(first: Candidate, other: Candidate) -> str:
    """Why `first` is preferred."""
    assert first.stack is not None
    assert other.stack is not None
    for one in PREFERENCES:
        if one.rank(first.facts, first.stack) > one.rank(other.facts, other.stack):
            return f"{first.name} is preferred: {one.words}"
    return f"{first.name} is equally good, and first in the order of names"
