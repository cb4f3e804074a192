"""Reads what the datasets library writes: parquet files and their shards, and folders of `save_to_disk`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.images.debris import files_below
from stageproof.runtime.system.regular_files import open_regular, read_text
from stageproof.train.data.samples import Skipped
from stageproof.train.data.sources.arrow_rows import table_rows
from stageproof.train.data.sources.not_taken import not_taken
from stageproof.train.data.sources.rows import Part, Rows

INFO, STATE, DICT = "dataset_info.json", "state.json", "dataset_dict.json"
_SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]{16})?")
_SPLIT = re.compile(
    r"(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?|dev|eval(?:uation)?)(?=$|[-_.\d])", re.IGNORECASE
)
_LARGEST_JSON = 1 << 26


def parquet_file(path: Path) -> list[Part]:
    """The one part of a parquet file; one of several shards stands for all shards of its split in its folder."""
    match = _SHARD.fullmatch(path.stem)
    if match is None or int(match["count"]) < 2:
        return [Part("", _parquet([path], path))]
    return [Part("", _parquet(_shards(path, match["split"]), path))]


def _shards(path: Path, split: str) -> list[Path]:
    """All shards of a split, beside one of them."""
    shards = [one for one in sorted(path.parent.iterdir()) if _is_shard_of(one, split)]
    _check_shards(shards, path.parent)
    return shards


def parquet_folder(root: Path, files: Sequence[Path]) -> list[Part]:
    """The parts of a folder with parquet `files`, one for each split; shards of a split are joined."""
    splits = _splits(root, files)
    named = len(splits) > 1
    return [Part(split if named else "", _parquet(shards, root)) for split, shards in splits.items()]


def rows_beside_images(data: Path) -> list[dict[str, Any]] | None:
    """The rows of a parquet file, of shards of one split, or of a saved dataset, in the order of `Rows.names`, without
    the images; None for other data."""
    import pyarrow.parquet as pq

    if data.is_dir() and is_saved(data):
        return None if (data / DICT).is_file() else _plain_rows([_saved_table(data)])
    if data.is_file():
        match = _SHARD.fullmatch(data.stem)
        files = [data] if match is None else _shards(data, match["split"])
    else:
        splits = _splits(data, [file for file in files_below(data).files if file.suffix.lower() == ".parquet"])
        files = next(iter(splits.values())) if len(splits) == 1 else []
    return _plain_rows([pq.ParquetFile(file) for file in files]) if files else None


def _plain_rows(tables: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of tables or parquet files in the columns of numbers and text."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for table in tables:
        schema = table.schema_arrow if hasattr(table, "schema_arrow") else table.schema
        names = [
            field.name for field in schema if not (pa.types.is_nested(field.type) or pa.types.is_binary(field.type))
        ]
        chosen = table.read(columns=names) if hasattr(table, "schema_arrow") else table.select(names)
        rows += chosen.to_pylist() or []
    return rows


def _splits(root: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """The parquet files of each split, in order."""
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        splits[_split_of(file, root)].append(file)
    if "" in splits and (len(splits) > 1 or not _in_sequence(splits[""])):
        names = ", ".join(repr(file.relative_to(root).as_posix()) for file in splits[""][:4])
        raise DatasetError(
            f"{root} has parquet files of which it is unclear how they belong together: {names}. Name shards as in "
            "train-00000-of-00002.parquet, or give one file."
        )
    for split, shards in splits.items():
        if len({shard.parent for shard in shards}) > 1:
            folders = sorted({shard.parent.relative_to(root).as_posix() for shard in shards})
            raise DatasetError(
                f"{root} has files of the split {split!r} in several folders ({', '.join(folders)}), such as those of "
                "several configurations. Give one of these folders."
            )
        _check_shards(shards, root)
    return splits


def is_saved(root: Path) -> bool:
    """Whether `save_to_disk` of the datasets library wrote the folder."""
    return (root / DICT).is_file() or ((root / STATE).is_file() and (root / INFO).is_file())


def saved_folder(root: Path) -> list[Part]:
    """The parts of a folder that `save_to_disk` wrote: one for each split of a DatasetDict, else one."""
    if not (root / DICT).is_file():
        return [Part("", _saved(root))]
    splits = _json(root / DICT).get("splits")
    if not isinstance(splits, list) or not splits or not all(_is_name(split) for split in splits):
        raise DatasetError(f"{root / DICT}: 'splits' is {splits!r}, expected the names of its folders. Save it again.")
    return [Part(split, _saved(root / split)) for split in splits]


def part_path(root: Path, part: str, files: Iterable[Path] = ()) -> Path:
    """The path of one part of `root`: its folder, or the first of its parquet `files`."""
    return next((file for file in files if _split_of(file, root) == part), root / part)


def _split_of(file: Path, root: Path) -> str:
    """The split in the name of a parquet file or of its folders; empty if there is none."""
    if match := _SHARD.fullmatch(file.stem):
        return match["split"]
    for name in (file.stem, *reversed(file.relative_to(root).parts[:-1])):
        if match := _SPLIT.match(name):
            return match[1]
    return ""


def _is_shard_of(file: Path, split: str) -> bool:
    match = _SHARD.fullmatch(file.stem)
    return file.suffix.lower() == ".parquet" and match is not None and match["split"] == split


def _in_sequence(files: Sequence[Path]) -> bool:
    return len(files) == 1 or all(file.stem.isdecimal() for file in files)


def _check_shards(shards: Sequence[Path], where: Path) -> None:
    """Raise DatasetError unless the shards are complete, and of one writing."""
    found = [match for shard in shards if (match := _SHARD.fullmatch(shard.stem))]
    if not found:
        if len(shards) > 1 and not _in_sequence(shards):
            names = ", ".join(repr(shard.name) for shard in shards[:4])
            raise DatasetError(
                f"{where} has several files of one split: {names}. Give one of them, or name shards as "
                "in train-00000-of-00002.parquet."
            )
        return
    counts = {int(match["count"]) for match in found}
    numbers = sorted(int(match["number"]) for match in found)
    if len(found) != len(shards) or len(counts) > 1 or len(set(numbers)) < len(numbers):
        names = ", ".join(repr(shard.name) for shard in shards[:4])
        raise DatasetError(f"{where} has shards of several writings of {found[0]['split']!r}: {names}. Keep one.")
    if missing := sorted(set(range(counts.pop())) - set(numbers)):
        raise DatasetError(
            f"{where}: {len(missing)} shards of {found[0]['split']!r} are missing, the first is number "
            f"{missing[0]:05d}. Download all of them."
        )


def _parquet(files: Sequence[Path], where: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in files:
        with open_regular(file) as opened:
            if opened.read(4) != b"PAR1":
                raise DatasetError(not_taken(file))
        try:
            tables.append((pq.ParquetFile(file).read(), file))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{file} cannot be read as parquet: {error}") from error
    return table_rows(tables, where)


def _saved(folder: Path) -> Rows:
    """The rows of one dataset of `save_to_disk`."""
    return table_rows([(_saved_table(folder), folder)], folder)


def _saved_table(folder: Path) -> Any:
    """The table of one dataset of `save_to_disk`, in the order of its indices if it has any."""
    import pyarrow as pa

    state, info = _json(folder / STATE), _json(folder / INFO)
    listed = [_file(folder, one) for one in state.get("_data_files") or []]
    if not listed:
        raise DatasetError(f"{folder / STATE} lists no data file. Save the dataset again with save_to_disk.")
    table = pa.concat_tables([_stream(file) for file in listed])
    metadata = {**(table.schema.metadata or {}), b"huggingface": json.dumps({"info": info}).encode()}
    indices = [_file(folder, one) for one in state.get("_indices_data_files") or state.get("_indices_files") or []]
    if unknown := [one.name for one in sorted(folder.glob("*.arrow")) if one not in (*listed, *indices)]:
        raise DatasetError(
            f"{folder} has {', '.join(map(repr, unknown))}, which {STATE} does not list; it may select or order the "
            "rows. Save the dataset again with save_to_disk."
        )
    if indices:
        chosen = pa.concat_tables([_stream(file) for file in indices]).column(0)
        if len(chosen) and not 0 <= min(chosen.to_pylist()) <= max(chosen.to_pylist()) < table.num_rows:
            raise DatasetError(f"{indices[0]} refers to rows beyond the {table.num_rows} of the data. Save it again.")
        table = table.take(chosen)
    return table.replace_schema_metadata(metadata)


def _stream(file: Path) -> Any:
    import pyarrow as pa

    try:
        with pa.OSFile(str(file)) as source:
            return pa.ipc.open_stream(source).read_all()
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{file} cannot be read as an Arrow stream: {error}. Save it again, or copy it again."
        ) from error


def _file(folder: Path, entry: Any) -> Path:
    name = entry.get("filename") if isinstance(entry, dict) else None
    if not _is_name(name):
        raise DatasetError(f"{folder / STATE} lists the file {name!r}, expected a file name without folders.")
    return folder / str(name)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path, _LARGEST_JSON))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}. Save the dataset again with save_to_disk.") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} has no JSON object. Save the dataset again with save_to_disk.")
    return found


def others_beside(root: Path, files: Sequence[Path]) -> tuple[Skipped, ...]:
    """The files of a parquet folder that are not parquet files, apart from documentation and tables of ids."""
    known = {"readme.md", "readme", "license", "dataset_infos.json", "groups.csv", "participants.tsv"}
    beside = [file.relative_to(root).as_posix() for file in files]
    beside = [name for name in beside if not name.lower().endswith(".parquet") and Path(name).name.lower() not in known]
    return (Skipped("files beside the parquet files", len(beside), beside[0]),) if beside else ()
