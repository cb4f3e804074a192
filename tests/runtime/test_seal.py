"""For every key of a real manifest and every file of a real bundle: without it, with another, or with one more, the
bundle is refused by name before an engine sees a byte. New keys and files are covered as soon as an export writes them.

Two adversaries: one who changes files, and one who computes the manifest's digest again afterwards. The second may
change what `FREE` names, and nothing else; docs/SEAL.md says the same, and what helps there is a signature.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from stageproof.runtime import BundleError, Predictor, backends
from stageproof.runtime.artifacts.metadata import METADATA_KEYS
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.serialization.digests import UNSEALED, seal

ROOT = Path(__file__).parents[2]
OLD = ROOT / "tests" / "data" / "bundle-0.1"
MANIFEST = "manifest.json"

FREE = {
    "provenance*": "where the model comes from",
    "artifacts.*.checks*": "what the export measured",
    "artifacts.*.requires*": "what a compiled artifact was built for",
    "golden*": "images and logits of the self-test",
    "documents*": "model card, parity report",
    "artifacts": "which artifacts there are",
}
"""What only a signature protects from somebody who computes the digest again."""
GOES_WITH_ITS_FILE = re.compile(r"(artifacts|golden|documents)\.\d+|guard|golden|documents")
"""An entry that is gone from the manifest leaves its file behind, which is refused; gone with its file, see `FREE`."""

Path_ = tuple[str | int, ...]


@pytest.fixture(autouse=True)
def nothing_is_loaded(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # built before, by engines
    def load(*args: object, **settings: object) -> None:
        raise AssertionError("an engine was asked to load a file of a bundle that should have been refused")

    monkeypatch.setattr(backends, "load", load)


@pytest.fixture(params=["today's", "version 0.1's"])
def sealed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a bundle that may be changed."""
    source = OLD if request.param == "version 0.1's" else request.getfixturevalue("tiny_bundle")
    shutil.copytree(source, tmp_path / "bundle")
    return tmp_path / "bundle"


def paths(value: Any, at: Path_ = ()) -> Iterator[Path_]:
    """The place of every value in a JSON document, outermost first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inside:
        yield (*at, key)
        yield from paths(each, (*at, key))


def one_of_each_kind(data: dict[str, Any]) -> Iterator[Path_]:
    """As `paths`, but of entries that are alike (images, checks, documents) only the first that has the key."""
    seen = set()
    for at in paths(data):
        of_an_artifact = at[0] == "artifacts" and "checks" not in at
        kind = at if of_an_artifact else tuple("*" if isinstance(key, int) else key for key in at)
        if kind not in seen:
            seen.add(kind)
            yield at


def found(data: Any, at: Path_) -> Any:
    for key in at:
        data = data[key]
    return data


def named(at: Path_) -> str:
    return ".".join(map(str, at))


def other(value: Any) -> Any:
    """Another value of the same kind, as close as one can be."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1 if isinstance(value, int) else value * 0.5 + 0.125
    if isinstance(value, str):
        return ("1" if value[:1] != "1" else "2") + value[1:]
    if isinstance(value, list):
        return list(reversed(value)) if value != value[::-1] else [*value, *value[:1]]
    if isinstance(value, dict):
        return {**value, "added": 1}
    return 0


WRONG_KINDS = (None, True, "text", 7, [], {})


def variants(data: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What was done, to which key, and the manifest after it."""
    for at in one_of_each_kind(data):
        if at == ("sha256",):
            continue  # a digest of its own: below
        for what, change in {
            "deleted": lambda holder, key: holder.pop(key),
            "changed": lambda holder, key: holder.__setitem__(key, other(holder[key])),
            "added": lambda holder, key: holder.update(added=1) if isinstance(holder, dict) else holder.append(1),
        }.items():
            edited = copy.deepcopy(data)
            change(found(edited, at[:-1]), at[-1])
            yield what, named(at if what != "added" else (*at[:-1], "added")), edited


def write(bundle: Path, data: dict[str, Any], *, sealed_again: bool) -> None:
    text = json.dumps({**data, "sha256": UNSEALED} if sealed_again else data)
    (bundle / MANIFEST).write_text(seal(text) if sealed_again else text, encoding="utf-8")


def refusal(bundle: Path) -> str | None:
    try:
        verified(bundle)
    except BundleError as error:
        return str(error)
    return None


def test_every_key_changed_is_refused_with_the_manifests_name(sealed: Path) -> None:
    data = json.loads((sealed / MANIFEST).read_text(encoding="utf-8"))
    done = 0
    for what, key, edited in variants(data):
        write(sealed, edited, sealed_again=False)
        message = refusal(sealed)
        assert message is not None, f"{key} {what}: the bundle was accepted"
        assert MANIFEST in message, f"{key} {what}: {message}"
        done += 1
    assert done > 300


def test_every_list_of_the_manifest_in_another_order_is_refused(sealed: Path) -> None:
    data = json.loads((sealed / MANIFEST).read_text(encoding="utf-8"))
    lists = [at for at in paths(data) if isinstance(found(data, at), list) and len(found(data, at)) > 1]
    assert ("model", "labels") in lists
    assert ("artifacts",) in lists
    for at in lists:
        edited = copy.deepcopy(data)
        found(edited, at).reverse()
        if edited != data:
            write(sealed, edited, sealed_again=False)
            assert MANIFEST in str(refusal(sealed)), named(at)


def test_the_digest_of_the_manifest_itself(sealed: Path) -> None:
    text = (sealed / MANIFEST).read_text(encoding="utf-8")
    data = json.loads(text)
    for value in (None, *WRONG_KINDS, "", UNSEALED, other(data["sha256"]), data["sha256"].upper()):
        edited = {**data, "sha256": value}
        if value is None:
            edited.pop("sha256")
        write(sealed, edited, sealed_again=False)
        message = str(refusal(sealed))
        assert MANIFEST in message
        assert "changed after export" in message
    (sealed / MANIFEST).write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    assert "changed after export" in str(refusal(sealed))


def test_whoever_computes_the_digest_again_is_stopped_by_what_the_artifacts_carry(sealed: Path) -> None:
    """Every key but those of `FREE`: refused, and the message names the key or the file."""
    data = json.loads((sealed / MANIFEST).read_text(encoding="utf-8"))
    accepted, refused = set(), set()
    for what, key, edited in variants(data):
        write(sealed, edited, sealed_again=True)
        message = refusal(sealed)
        if message is None:
            accepted.add(f"{key} {what}")
            free = any(fnmatchcase(key, pattern) for pattern in FREE)
            old = "precision" not in carried_keys(sealed)
            assert free or (old and re.fullmatch(r"artifacts\.\d+\.precision", key)), f"{key} {what} was accepted"
        else:
            refused.add(key)
            last = [part for part in key.split(".") if not part.isdigit()][-1]
            file = re.search(r"[a-z0-9./]+\.(onnx|xml|bin|ts|pt2|safetensors|npz|png|json|md)\b", message.lower())
            assert last in message or file, f"{key} {what}: {message}"
    for key in ("model.labels", "model.input.mean", "model.input.height", "model.temperature", "model.digest"):
        assert key in refused, f"{key} in {sorted(accepted)}"


def carried_keys(bundle: Path) -> set[str]:
    header = (bundle / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    metadata = json.loads(header[8 : 8 + length])["__metadata__"]
    return set(json.loads(next(metadata[key] for key in METADATA_KEYS if key in metadata)))


def test_another_kind_of_value_is_refused_wherever_the_schema_has_one(sealed: Path) -> None:
    """Also with a digest that fits: a text where a number belongs is never carried on."""
    data = json.loads((sealed / MANIFEST).read_text(encoding="utf-8"))
    free = ("provenance.*", "artifacts.*.checks.*.parity.*", "artifacts.*.requires.*")
    for at in one_of_each_kind(data):
        if at == ("sha256",) or any(fnmatchcase(named(at), pattern) for pattern in free):
            continue
        here = found(data, at)
        for value in WRONG_KINDS:
            same = type(value) is type(here) or (isinstance(here, float) and type(value) is int)
            if same or (here == {} and value == {}):
                continue
            edited = copy.deepcopy(data)
            found(edited, at[:-1])[at[-1]] = value
            write(sealed, edited, sealed_again=True)
            assert refusal(sealed) is not None, f"{named(at)} = {value!r}"


def test_every_pair_of_labels_exchanged_and_the_digest_computed_again(sealed: Path) -> None:
    """Row 3 of the attacks: the stage would be another, and nothing else would show it."""
    data = json.loads((sealed / MANIFEST).read_text(encoding="utf-8"))
    for first in range(4):
        for second in range(first):
            edited = copy.deepcopy(data)
            labels = edited["model"]["labels"]
            labels[first], labels[second] = labels[second], labels[first]
            write(sealed, edited, sealed_again=True)
            with pytest.raises(BundleError, match=r"model\.onnx has labels \[.*\], but .*manifest\.json has \["):
                Predictor(sealed)


@pytest.mark.parametrize("attack", ["the digest deleted, labels reversed", "the guard removed", "a file added"])
def test_the_attacks_of_row_3(sealed: Path, attack: str) -> None:
    data = json.loads((sealed / MANIFEST).read_text(encoding="utf-8"))
    if attack == "the digest deleted, labels reversed":
        del data["sha256"]
        data["model"]["labels"].reverse()
        write(sealed, data, sealed_again=False)
        match = r"manifest\.json lacks 'sha256'"
    elif attack == "the guard removed":
        del data["guard"], data["sha256"]
        (sealed / "guard.npz").unlink()
        write(sealed, data, sealed_again=False)
        match = r"manifest\.json lacks 'sha256'"
    else:
        (sealed / "notes.txt").write_text("harmless", encoding="utf-8")
        match = r"notes\.txt is not listed in the manifest.*Nothing was loaded"
    with pytest.raises(BundleError, match=match):
        Predictor(sealed)


def test_a_guard_removed_with_its_entry_and_the_digest_computed_again(tiny_bundle: Path, tmp_path: Path) -> None:
    """Artifacts carry whether their bundle has a guard. Those of version 0.1 do not."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    data = json.loads((tmp_path / "bundle" / MANIFEST).read_text(encoding="utf-8"))
    (tmp_path / "bundle" / data.pop("guard")["file"]).unlink()
    write(tmp_path / "bundle", data, sealed_again=True)
    with pytest.raises(BundleError, match=r"model\.onnx has guard required, but .*manifest\.json has none"):
        Predictor(tmp_path / "bundle")


def test_every_file_deleted_changed_cut_or_longer_is_refused_by_its_name(sealed: Path) -> None:
    files = [path for path in sorted(sealed.rglob("*")) if path.is_file()]
    assert len(files) > 15
    for path in files:
        content = path.read_bytes()
        middle = len(content) // 2
        changed = {
            "deleted": None,
            "emptied": b"",
            "cut": content[:-1],
            "longer": content + b" ",
            "changed at its begin": bytes([content[0] ^ 1]) + content[1:],
            "changed in the middle": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "changed at its end": content[:-1] + bytes([content[-1] ^ 1]),
        }
        for what, bad in changed.items():
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            message = refusal(sealed)
            assert message is not None, f"{path.name} {what}: accepted"
            assert path.name in message, f"{path.name} {what}: {message}"
            path.write_bytes(content)
    assert refusal(sealed) is None


def test_every_file_renamed_linked_or_replaced_by_something_else_is_refused(sealed: Path, tmp_path: Path) -> None:
    aside = tmp_path / "aside"
    for path in [path for path in sorted(sealed.rglob("*")) if path.is_file()]:
        path.rename(aside)
        reasons = "but missing|is not listed|is a symbolic link|not a regular file|has no manifest|cannot be"
        replaced = {
            "a link to outside": lambda path: path.symlink_to(aside),
            "a link to itself": lambda path: path.symlink_to(path.name),
            "a folder": lambda path: path.mkdir(),
            "a FIFO": lambda path: os.mkfifo(path),
            "in another case": lambda path: shutil.copy(aside, path.with_name(path.name.upper())),
            "a hidden copy": lambda path: shutil.copy(aside, path.with_name(f".{path.name}")),
        }
        for what, put in replaced.items():
            put(path)
            message = refusal(sealed)
            assert message is not None, f"{path.name} {what}: accepted"
            assert path.name.lower() in message.lower(), f"{path.name} {what}: {message}"
            assert re.search(reasons, message), message
            for left in (path, path.with_name(path.name.upper()), path.with_name(f".{path.name}")):
                if left.is_dir() and not left.is_symlink():
                    left.rmdir()
                else:
                    left.unlink(missing_ok=True)
        aside.rename(path)
    assert refusal(sealed) is None


ADDED = [
    *("notes.txt", "README", "results.csv", "other.onnx", "model.onnx.bak", "MODEL.ONNX", "Manifest.json"),
    *(".DS_Store", ".hidden.pt", "._model.onnx", "Thumbs.db", "MODEL.SIG", "model.sig.old", "run.json", "x.py"),
    *(
        "golden/extra.png",
        "golden/.DS_Store",
        "engines/x.plan",
        "deep/er/x",
        "rejected/model.onnx",
        "rejected/a/b.log",
    ),
    *("logs/x.so", "logs/deep/x.log", "Rejected/x.json", "rejected/.rejected/x.log", "conftest.py", "numpy.py"),
    *("a\nb", "model.onnx\x1b[2J", "modèle", "model.on\u0274x"),
]


@pytest.mark.parametrize("name", ADDED)
def test_whatever_is_added_is_refused_by_its_name(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_bytes(b"x")
    message = str(refusal(bundle))
    assert "is not listed in the manifest: it was added" in message
    assert (name.split("/")[0] if name.isprintable() else repr(name)[1:-1]) in message
    assert message.isprintable()


@pytest.mark.parametrize("kind", ["folder", "link", "broken link", "link to a folder", "FIFO", "socket"])
@pytest.mark.parametrize("place", [".", "golden", "rejected", "logs"])
def test_nothing_but_files_may_be_added_anywhere(tiny_bundle: Path, tmp_path: Path, kind: str, place: str) -> None:
    bundle = tmp_path / "b"
    shutil.copytree(tiny_bundle, bundle)
    (bundle / place).mkdir(exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    name = bundle / place / {"rejected": "x.rejected", "logs": "x.log"}.get(place, "x")
    make = {
        "folder": lambda: name.mkdir(),
        "link": lambda: name.symlink_to(bundle / "model.onnx"),
        "broken link": lambda: name.symlink_to("nowhere"),
        "link to a folder": lambda: name.symlink_to(tmp_path),
        "FIFO": lambda: os.mkfifo(name),
        "socket": lambda: listener.bind(str(name)),
    }
    with listener:
        make[kind]()
    assert name.name in str(refusal(bundle))


def test_what_may_lie_beside(sealed: Path) -> None:
    """The signature, and what an export leaves of what it rejected and what engines printed."""
    (sealed / "model.sig").write_text("a signature", encoding="utf-8")
    for name in ("rejected/model.int8.onnx.rejected", "rejected/model.int8.onnx.json", "logs/onnx.log"):
        (sealed / name).parent.mkdir(exist_ok=True)
        (sealed / name).write_bytes(b"x")
    assert refusal(sealed) is None


def test_a_bundle_reached_through_a_link_is_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(tiny_bundle)
    assert verified(tmp_path / "current").artifacts


def test_the_page_names_all_that_is_free() -> None:
    page = (ROOT / "docs" / "SEAL.md").read_text(encoding="utf-8")
    for pattern in FREE:
        key = pattern.replace("*", "").strip(".").split(".")[-1]
        assert f"`{key}`" in page, f"docs/SEAL.md does not say that {key} is protected by a signature only"
