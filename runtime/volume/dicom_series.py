"""`group_series`: DICOM files → series, whose frames are stacked and read in the order of their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stageproof.runtime.dicom.image import read_values
from stageproof.runtime.errors import VolumeError
from stageproof.runtime.headers.limits import ALL_FRAMES, MAX_PIXELS
from stageproof.runtime.volume.files import SourceFile
from stageproof.runtime.volume.headers import FileHeader, FrameGeometry, read_header
from stageproof.runtime.volume.stacking import Stack, stack
from stageproof.runtime.volume.volume import SeriesFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_VOXELS = ALL_FRAMES * MAX_PIXELS


@dataclass(frozen=True)
class DicomSeries:
    """The files of one series."""

    name: str
    """For messages: number in the study, description and number of images."""
    facts: SeriesFacts
    files: tuple[tuple[SourceFile, FileHeader], ...]

    def stacked(self) -> tuple[Stack, None] | tuple[None, VolumeError]:
        """The stack of all frames, or why they are none."""
        frames = [frame for _, header in self.files for frame in header.frames]
        if any(header.facts.age != self.facts.age for _, header in self.files):
            return None, VolumeError("several_studies", "files of one series state different ages. Export it again.")
        if len(frames) * frames[0].shape[0] * frames[0].shape[1] > _MAX_VOXELS:
            return None, VolumeError(
                "unreadable", f"the series has more than {_MAX_VOXELS} voxels, the limit. Pass a smaller one."
            )
        try:
            return stack(frames), None
        except VolumeError as error:
            return None, error

    def voxels(self, stacked: Stack) -> NDArray[np.float32]:
        """(columns, rows, slices) values after the rescale of each frame. Raises ImageError and VolumeError."""
        place = np.empty(len(stacked.order), dtype=int)
        place[list(stacked.order)] = np.arange(len(stacked.order))
        voxels = np.empty(stacked.shape, dtype=np.float32)
        first = 0
        for file, header in self.files:
            data, where = file.read(), repr(file.name)
            if not _same(header, read_header(data, where)):
                raise VolumeError("unreadable", f"{where} changed while the series was read. Start again.")
            values = read_values(data, where)
            if values.shape != (len(header.frames), *header.frames[0].shape):
                raise VolumeError("unreadable", f"{where} has other frames than its header states. Export it again.")
            for frame in values:
                voxels[:, :, place[first]] = frame.T
                first += 1
        return voxels


def group_series(files: list[tuple[SourceFile, FileHeader]]) -> list[DicomSeries]:
    """The series of one study, in the order of their descriptions and sizes."""
    groups: dict[str, list[tuple[SourceFile, FileHeader]]] = {}
    for file, header in files:
        groups.setdefault(header.series, []).append((file, header))
    ordered = sorted(groups.items(), key=lambda item: (item[1][0][1].facts.description, -len(item[1]), item[0]))
    made = []
    for number, (_, members) in enumerate(ordered, start=1):
        facts = members[0][1].facts
        images = sum(len(header.frames) for _, header in members)
        name = f"series {number} ({facts.description or 'no description'}, {images} images)"
        made.append(DicomSeries(name, facts, tuple(members)))
    return made


def _same(one: FileHeader, other: FileHeader | None) -> bool:
    return other is not None and one.facts == other.facts and all(map(_alike, one.frames, other.frames))


def _alike(one: FrameGeometry, other: FrameGeometry) -> bool:
    return one.shape == other.shape and np.array_equal(one.position, other.position)  # type: ignore[arg-type]
