"""Removes image names and file paths from a bundle's logs and reports: they must not leave the exporting machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.options import Options
from stageproof.export.reference.model import Reference
from stageproof.runtime.artifacts.entries import LOGS
from stageproof.train.runs.pseudonyms import ABSOLUTE_PATH, PHANTOM, Pseudonyms, public_run, with_texts
from stageproof.train.runs.record import data_path, read_record

_SHORTEST = 5
"""Minimum length of a name that is replaced in texts, in characters: shorter ones also occur as parts of words."""


class Redactor:
    """Replaces the image names and paths of one export in texts."""

    def __init__(self, options: Options, reference: Reference, evaluation_set: EvaluationSet) -> None:
        """evaluation_set: with `samples` and `key`, as returned by `export.parity.reference_answers.gather`."""
        self._pseudonyms = Pseudonyms(evaluation_set.key)
        samples = evaluation_set.samples
        real = samples is not None and not samples.source.startswith(PHANTOM)
        self._names = list(samples.names) if samples is not None and real else []
        self._words = dict(_words(options, reference, [samples.source] if samples is not None and real else []))
        for name in self._names:
            if len(name) >= _SHORTEST:
                self._words[name] = self._pseudonyms.of(name)
        self._longest_first = sorted(self._words, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text without names and paths. Names of Python files are kept, for tracebacks."""
        for word in self._longest_first:
            text = text.replace(word, self._words[word])
        return ABSOLUTE_PATH.sub(
            lambda found: f"<path>/{Path(found[0]).name}" if found[0].endswith(".py") else "<path>", text
        )

    def json(self, value: Any) -> Any:
        """The JSON-like value with `text` applied to every string."""
        return with_texts(value, self.text)

    def clean_logs(self, folder: Path) -> None:
        """Remove names and paths from the logs in `folder`, in place."""
        for log in (folder / LOGS).glob("*.log"):
            log.write_text(self.text(log.read_text("utf-8", "replace")), encoding="utf-8")

    def write_names(self, bundle: Path) -> Path | None:
        """Path of a file beside the bundle that maps digests to image names, readable by this user only; None for
        phantoms, which need none."""
        if not self._names:
            return None
        path = bundle.with_name(f"{bundle.name}.names.json")
        self._pseudonyms.write(path, self._names)
        return path


def _words(options: Options, reference: Reference, sources: list[str]) -> Iterable[tuple[str, str]]:
    """Yields (path, its replacement)."""
    paths: dict[str, list[Path | None]] = {
        "<data>": [options.parity_data, options.calibration_data, *map(Path, sources)],
        "<run>": [options.source, reference.run],
        "<bundle>": [options.out],
    }
    if reference.run is not None:
        paths["<data>"].append(data_path(reference.run, read_record(reference.run)))
        name = reference.run.name  # in the warning about missing data (`export.data.run_data`)
        yield f"the data of {name} ", f"the data of {public_run(name, reference.info.digest)} "
    for replacement, listed in paths.items():
        for path in listed:
            for spelt in {str(path), str(path.resolve())} if path is not None else ():
                if len(spelt) >= _SHORTEST:
                    yield spelt, replacement
