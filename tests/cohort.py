"""One phantom cohort, written in every layout that `--data` takes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from stageproof.runtime.labels import BUILT_IN, LabelSet, label_set
from stageproof.train.data.phantom.slices import encode, scans

SEVEN = ("Unaffected", "Doubtful", "Grade 1.5", "Grade 2", "Grade 2+", "Grade 3", "Bedridden")
SETS: dict[int, LabelSet] = {
    2: label_set(BUILT_IN["cn-ad"]),
    3: label_set(BUILT_IN["cn-mci-ad"]),
    4: label_set(BUILT_IN["four-stages"]),
    7: label_set(SEVEN),
}
"""Number of classes → label set; that of seven is not built in."""


@dataclass(frozen=True)
class Slice:
    """One slice of the cohort."""

    name: str
    """``OAS1_0001_MR1_0.png``: patient 1, slice 0."""
    label: str
    patient: str
    number: int
    png: bytes

    @property
    def age(self) -> int:
        return 50 + int(self.patient.removeprefix("OAS1_"))


@cache
def cohort(classes: int, people: int | None = None, slices: int = 2, size: int = 32) -> tuple[Slice, ...]:
    """`people` patients of each class (by default 4, or 2 of four classes or more), with a few slices each."""
    people = people or (4 if classes < 4 else 2)
    names = SETS[classes].names
    return tuple(
        Slice(
            f"OAS1_{patient:04d}_MR1_{number}.png", names[label], f"OAS1_{patient:04d}", number, encode(pixels, "png")
        )
        for label, patient, number, pixels in scans(people, slices, size, 0, classes=classes)
    )


def class_folders(slices: Sequence[Slice], root: Path, spell: Callable[[str], str] = str) -> Path:
    """CLASS/FILE."""
    for one in slices:
        path = root / spell(one.label) / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.png)
    return root


def nested(slices: Sequence[Slice], root: Path) -> Path:
    """CLASS/SESSION/FILE, with files that macOS and Windows leave behind."""
    for one in slices:
        path = root / one.label / "scans" / f"s{one.number}" / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.png)
        (path.parent / f"._{one.name}").write_bytes(b"\0\5\x16\7")
    (root / slices[0].label / "Thumbs.db").write_bytes(b"\xd0\xcf")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / slices[0].name).write_bytes(slices[0].png)
    return root


def linked(slices: Sequence[Slice], root: Path) -> Path:
    """Class folders that are links to folders elsewhere."""
    away = class_folders(slices, root.with_name(f"{root.name}-elsewhere"))
    root.mkdir()
    for folder in away.iterdir():
        (root / folder.name).symlink_to(folder, target_is_directory=True)
    return root


def patients(slices: Sequence[Slice], root: Path) -> Path:
    """PATIENT/CLASS/FILE."""
    for one in slices:
        path = root / one.patient / one.label / one.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.png)
    return root


def halves(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """A training part, and a test part of other patients."""
    people = sorted({one.patient for one in slices})
    return {
        "train": [one for one in slices if people.index(one.patient) % 4],
        "test": [one for one in slices if not people.index(one.patient) % 4],
    }


def parts(slices: Sequence[Slice], root: Path) -> Path:
    """train/CLASS/FILE and test/CLASS/FILE."""
    for name, chosen in halves(slices).items():
        class_folders(chosen, root / name)
    return root


def table(slices: Sequence[Slice], names: Sequence[str] | None, labels: Callable[[str], object] = str):
    """An Arrow table with an image column; names: those of its ClassLabel, in their order; None: labels as given."""
    import pyarrow as pa

    rows = [{"bytes": one.png, "path": one.name} for one in slices]
    values = [labels(one.label) if names is None else list(names).index(one.label) for one in slices]
    made = pa.table({"image": rows, "label": values, "age": [one.age for one in slices]})
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def parquet(slices: Sequence[Slice], root: Path) -> Path:
    """One file, whose ClassLabel is alphabetical."""
    import pyarrow.parquet as pq

    root.mkdir()
    pq.write_table(table(slices, sorted({one.label for one in slices})), root / "all.parquet")
    return root / "all.parquet"


def shards(slices: Sequence[Slice], root: Path, split: str = "train") -> Path:
    """data/train-00000-of-00002.parquet, …: the second shard has its classes in the opposite order."""
    import pyarrow.parquet as pq

    names = sorted({one.label for one in slices})
    (root / "data").mkdir(parents=True, exist_ok=True)
    for number in range(2):
        mine = slices[number::2]
        pq.write_table(table(mine, names[:: 1 - 2 * number]), root / "data" / f"{split}-{number:05d}-of-00002.parquet")
    (root / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    return root


def shards_of_parts(slices: Sequence[Slice], root: Path) -> Path:
    """Shards of two splits."""
    for name, chosen in halves(slices).items():
        shards(chosen, root, name)
    return root


def saved(slices: Sequence[Slice], root: Path, names: Sequence[str] | None = None, indices: bool = False) -> Path:
    """A folder as `Dataset.save_to_disk` of the datasets library writes it; indices: as its first versions did."""
    import pyarrow as pa

    names = names or sorted({one.label for one in slices})
    root.mkdir(parents=True)
    stored = list(reversed(slices)) if indices else slices
    files = []
    for number, mine in enumerate((stored[:3], stored[3:])):
        files.append({"filename": f"data-{number:05d}-of-00002.arrow"})
        whole = table(mine, names)
        with pa.OSFile(str(root / files[-1]["filename"]), "wb") as sink, pa.ipc.new_stream(sink, whole.schema) as out:
            out.write_table(whole)
    state = {"_data_files": files, "_fingerprint": "0" * 16, "_format_type": None, "_split": None}
    if indices:
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
        order = pa.table({"indices": pa.array(range(len(slices) - 1, -1, -1), pa.uint64())})
        with pa.OSFile(str(root / "indices.arrow"), "wb") as sink, pa.ipc.new_stream(sink, order.schema) as out:
            out.write_table(order)
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    (root / "state.json").write_text(json.dumps(state))
    (root / "dataset_info.json").write_text(json.dumps({"features": features, "license": ""}))
    return root


def saved_with_indices(slices: Sequence[Slice], root: Path) -> Path:
    """`saved`, with rows in reverse order that an indices file puts right."""
    return saved(slices, root, indices=True)


def saved_parts(slices: Sequence[Slice], root: Path) -> Path:
    """A folder as `DatasetDict.save_to_disk` writes it; the two ClassLabels have opposite orders."""
    names = sorted({one.label for one in slices})
    for (name, chosen), order in zip(halves(slices).items(), (names, names[::-1]), strict=True):
        saved(chosen, root / name, order)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    return root


def csv(slices: Sequence[Slice], root: Path, label: Callable[[str], object] = str, column: str = "Label") -> Path:
    """A CSV as spreadsheets write it: byte-order mark, semicolons, capitals, and an empty row at the end."""
    (root / "images").mkdir(parents=True)
    rows = [f"Path;{column};Patient;Session;Age"]
    for one in slices:
        (root / "images" / one.name).write_bytes(one.png)
        rows.append(f"images/{one.name};{label(one.label)};{one.patient};MR1;{one.age}")
    (root / "slices.csv").write_text("\r\n".join([*rows, ";;;;"]) + "\r\n", encoding="utf-8-sig")
    return root / "slices.csv"


def tsv(slices: Sequence[Slice], root: Path) -> Path:
    """A TSV with absolute paths and two spellings of a class."""
    (root / "images").mkdir(parents=True)
    rows = ["diagnosis\tfile_name"]
    for at, one in enumerate(slices):
        (root / "images" / one.name).write_bytes(one.png)
        rows.append(f"{one.label.upper() if at % 2 else one.label}\t{root / 'images' / one.name}")
    (root / "slices.tsv").write_text("\n".join(rows), encoding="utf-8")
    return root / "slices.tsv"


def table_in_folder(slices: Sequence[Slice], root: Path) -> Path:
    """The folder of a CSV and its images."""
    return csv(slices, root).parent


def _dicom(one: Slice) -> bytes:
    from tests.runtime.dicoms import dataset, encoded

    pixels = np.asarray(Image.open(io.BytesIO(one.png)))
    window = {"WindowCenter": 128, "WindowWidth": 256}  # displays stored values as they are
    header = {"PatientID": one.patient, "StudyInstanceUID": "1.2.3", "InstanceNumber": one.number + 1}
    return encoded(dataset(pixels, **header, **window))


def dicom(slices: Sequence[Slice], root: Path) -> Path:
    """DICOM files in class folders, half of them without a suffix, and a DICOMDIR."""
    for at, one in enumerate(slices):
        path = root / one.label / (f"1.2.840.{at}" if at % 2 else f"{at}.dcm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_dicom(one))
    from tests.runtime.test_folders import dicom as of_kind

    (root / slices[0].label / "DICOMDIR").write_bytes(of_kind("1.2.840.10008.1.3.10"))
    return root


def dicom_table(slices: Sequence[Slice], root: Path) -> Path:
    """A CSV of DICOM files without suffix."""
    (root / "scans").mkdir(parents=True)
    rows = ["path,dx"]
    for at, one in enumerate(slices):
        (root / "scans" / f"IM{at:04d}").write_bytes(_dicom(one))
        rows.append(f"scans/IM{at:04d},{one.label}")
    (root / "scans.csv").write_text("\n".join(rows))
    return root / "scans.csv"


def bids(slices: Sequence[Slice], root: Path) -> Path:
    """BIDS folders of participants, with their classes in participants.tsv."""
    people = {}
    for one in slices:
        subject = f"sub-{one.patient.removeprefix('OAS1_')}"
        people[subject] = f"{one.age}\t{one.label}"
        path = root / subject / "anat" / f"{subject}_T1w_{one.number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.png)
    people["sub-9999"] = "n/a\tn/a"  # without images
    rows = ["participant_id\tage\tdiagnosis", *(f"{subject}\t{row}" for subject, row in people.items())]
    (root / "participants.tsv").write_text("\n".join(rows))
    return root


def zipped(layout: Callable[[Sequence[Slice], Path], Path]) -> Callable[[Sequence[Slice], Path], Path]:
    """The layout in a zip archive, inside one folder, with what macOS adds to it."""

    def write(slices: Sequence[Slice], root: Path) -> Path:
        layout(slices, root / "cohort")
        target = root / "cohort.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for folder, _, names in os.walk(root / "cohort"):
                for name in sorted(names):
                    path = Path(folder) / name
                    archive.write(path, path.relative_to(root))
            archive.writestr("__MACOSX/cohort/._slices.csv", b"\0\5\x16\7")
        return target

    return write


LAYOUTS: dict[str, Callable[[Sequence[Slice], Path], Path]] = {
    "class folders": class_folders,
    "nested class folders": nested,
    "linked class folders": linked,
    "class folders in patient folders": patients,
    "train and test folders": parts,
    "parquet": parquet,
    "shards": shards,
    "shards of two splits": shards_of_parts,
    "save_to_disk": saved,
    "save_to_disk with indices": saved_with_indices,
    "save_to_disk of a DatasetDict": saved_parts,
    "csv": csv,
    "tsv": tsv,
    "folder of a csv": table_in_folder,
    "dicom": dicom,
    "dicom and csv": dicom_table,
    "BIDS": bids,
    **{
        f"zip of {name}": zipped(layout)
        for name, layout in (
            ("class folders", class_folders),
            ("train and test folders", parts),
            ("parquet shards", shards),
            ("save_to_disk", saved),
            ("a csv", csv),
            ("dicom", dicom),
            ("BIDS", bids),
        )
    },
}
"""Name → function that writes the slices into a new folder and returns the path for `--data`."""


def key(image: bytes) -> str:
    """Digest of the pixels of a PNG or DICOM file, to find a slice of the cohort again."""
    from stageproof.runtime.images.reader import read

    return hashlib.sha256(np.asarray(read(image).image).tobytes()).hexdigest()
