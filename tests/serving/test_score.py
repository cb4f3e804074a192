"""An archive is scored once, continued after an interruption, and never mixed with something else."""

from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest

from stageproof.runtime import InputError, Predictor
from stageproof.runtime.images.folders import images_in
from stageproof.serving.archive.errors import ArchiveError
from stageproof.serving.archive.output import parts
from stageproof.serving.archive.output.plan import Plan, private
from stageproof.serving.archive.run import score
from stageproof.serving.archive.verification import verify
from tests.serving.conftest import BUNDLE


def bytes_of(out):
    return {path.name: path.read_bytes() for path in sorted((out / "parts").iterdir())}


def rows_of(plan):
    return [row for shard in plan.shards for row in parts.read(plan.part(shard))[0].to_pylist()]


def test_every_input_has_the_row_that_the_predictor_gives(archive, scored):
    plan = scored
    rows = rows_of(plan)
    listed = [entry.path for shard in plan.shards for entry in plan.entries(shard)]
    assert sorted(listed) == sorted(map(str, images_in(archive).images))
    assert [row["input"] for row in rows] == list(range(24))
    predicted = Predictor(BUNDLE, backend="onnx", threads=1).predict_batch(listed)
    for row, one in zip(rows, predicted, strict=True):
        assert (row["status"], row["label"], row["code"]) == (one.status, one.label, one.code)
        assert row["probability"] == pytest.approx(one.probability, abs=1e-6)
        found = [row[f"probability_{name}"] for name in one.probabilities]
        assert found == pytest.approx(list(one.probabilities.values()), abs=1e-6)
        assert {name: row[f"guard_{name}"] for name in one.guard} == pytest.approx(dict(one.guard))
    assert {row["status"] for row in rows} > {"rejected"}
    assert plan.data["listing"]["skipped"] == {"text": 1, "hidden or left behind by a system": 1}
    assert verify(plan, reread=True).complete


def test_the_same_inputs_give_the_same_bytes(scored, request_for, tmp_path):
    other = score(request_for(out=tmp_path / "other"))
    assert bytes_of(other.plan.out) == bytes_of(scored.out)
    again = score(request_for())
    assert (again.scored, again.kept) == (0, 24)


def test_a_missing_part_is_scored_again(scored, request_for):
    before = bytes_of(scored.out)
    scored.part(1).unlink()
    found = verify(scored)
    assert (found.complete, found.missing) == (False, (1,))
    assert score(request_for(inputs=[])).scored == 7
    assert bytes_of(scored.out) == before


@pytest.mark.parametrize("change", ["byte", "cut", "swapped", "foreign", "value"])
def test_a_part_that_was_changed_is_found_and_scored_again(change, scored, request_for, said):
    plan = scored
    before = bytes_of(plan.out)
    part = plan.part(1)
    content = bytearray(part.read_bytes())
    if change == "byte":
        content[len(content) // 3] ^= 1
    elif change == "cut":
        content = content[:-40]
    elif change == "swapped":
        content = bytearray(plan.part(0).read_bytes())
    elif change == "value":  # a valid parquet file with the same metadata, and one other value
        table = pq.read_table(part)
        at = table.schema.get_field_index("reason")
        table = table.set_column(at, table.schema.field(at), [["all is well"] * len(table)])
        pq.write_table(table, part)
        content = bytearray(part.read_bytes())
    else:
        content = bytearray((BUNDLE / "model.onnx").read_bytes())
    part.write_bytes(content)
    found = verify(plan)
    assert list(found.faults) == [1]
    assert not found.complete
    assert score(request_for()).scored == 7
    assert any(line.startswith("WARNING: part 1 is done again: it") for line in said)
    assert bytes_of(plan.out) == before


def test_a_part_of_another_bundle_is_scored_again(scored, request_for, tmp_path, said):
    plan = scored
    other = score(request_for(out=tmp_path / "other", backend="openvino", bundle=BUNDLE))
    shutil.copy(other.plan.part(2), plan.part(2))
    assert score(request_for()).scored == 7
    assert any("part 2 is done again: it was made with another backend" in line for line in said)


def test_changed_content_is_scored_again_and_a_new_time_alone_is_not(archive, request_for, tmp_path, said):
    root = tmp_path / "copy"
    shutil.copytree(archive, root)
    plan = score(request_for(inputs=[str(root)])).plan
    changed = root / "doe-john-1" / "anat" / "slice1.png"
    touched = root / "doe-john-5" / "anat" / "slice3.png"
    touched.touch()
    assert score(request_for(inputs=[str(root)])).scored == 0
    shutil.copy(root / "doe-john-2" / "anat" / "slice0.png", changed)
    assert verify(plan).complete
    assert verify(plan, reread=True).changed == 1
    assert score(request_for(inputs=[])).scored == 7
    assert any("part 0 is done again: the content of 1 inputs changed since, the first one input 5" in x for x in said)
    assert verify(plan, reread=True).complete


def test_an_input_that_changed_before_it_was_scored_is_counted(archive, request_for, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(archive / "doe-john-1", root)
    plan = score(request_for(inputs=[str(root)])).plan
    plan.part(0).unlink()
    (root / "anat" / "slice1.png").touch()
    score(request_for(inputs=[]))
    scored = [json.loads(line) for line in (plan.out / "log.jsonl").read_text().splitlines() if '"scored", ' in line]
    assert [one["changed"] for one in scored] == [0, 1]


def test_a_lone_artifact_is_scored_with_a_warning_that_nothing_is_rejected(request_for, said):
    plan = score(request_for(bundle=BUNDLE / "model.onnx")).plan
    warned = [line for line in said if "has no guard: every image gets" in line]
    assert len(warned) == 1
    assert warned[0].startswith("WARNING: ")
    assert not any(name.startswith("guard_") for name in rows_of(plan)[0])
    assert verify(plan).statuses["rejected"] == 1  # the broken file


def test_a_vanished_input_keeps_its_row(archive, request_for, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(archive, root)
    plan = score(request_for(inputs=[str(root)])).plan
    (root / "doe-john-1" / "anat" / "slice1.png").unlink()
    score(request_for(inputs=[]))
    row = rows_of(plan)[5]
    assert (row["status"], row["code"], row["sha256"]) == ("rejected", "unreadable", None)
    assert row["reason"] == "the file does not exist any more, or not on this machine"
    assert verify(plan, reread=True).complete


def test_a_file_beside_the_parts_is_named(scored):
    (scored.parts / "part-00000099.parquet").write_bytes(scored.part(0).read_bytes())
    found = verify(scored)
    assert found.foreign == ("part-00000099.parquet",)
    assert not found.complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "openvino"}, "was begun with --backend onnx, not openvino"),
        ({"precision": "fp16"}, "was begun with --precision fp32, not fp16"),
        ({"threads": 2}, "was begun with --threads 1, not 2"),
        ({"shard_images": 8}, "was begun with --shard-images 7, not 8"),
        ({"shard_bytes": 1 << 20}, "was begun with --shard-mb 256, not 1"),
        ({"inputs": ["elsewhere"]}, "was begun with --in .*, not elsewhere"),
    ],
)
def test_another_request_does_not_continue(change, message, scored, request_for):
    before = bytes_of(scored.out)
    with pytest.raises(InputError, match=message):
        score(request_for(**change))
    assert bytes_of(scored.out) == before


def test_another_bundle_or_key_does_not_continue(scored, request_for, tmp_path):
    other = tmp_path / "bundle"
    shutil.copytree(BUNDLE, other)
    with (other / "manifest.json").open("a") as file:
        file.write("\n")
    with pytest.raises(InputError, match="was begun with the bundle acbd271cac3c"):
        score(request_for(bundle=other))
    (tmp_path / "key").write_text("x" * 40)
    with pytest.raises(InputError, match="was begun with the key"):
        score(request_for(key=tmp_path / "key"))


def test_other_software_does_not_continue(scored, request_for, monkeypatch):
    scored.part(0).unlink()
    monkeypatch.setattr("stageproof.serving.archive.worker.stageproof.__version__", "9.9")
    with pytest.raises(Exception, match=r"has stageproof 9\.9 instead of "):
        score(request_for())


def test_names_and_patients_stay_in_the_private_folder(scored, archive):
    out = scored.out
    shared = [path for path in out.rglob("*") if path.is_file() and private(out) not in path.parents]
    assert len(shared) >= 6
    for path in shared:
        assert b"doe-john" not in path.read_bytes()
        assert str(archive).encode() not in path.read_bytes()
    for row in rows_of(scored):
        assert "doe-john" not in json.dumps(row)
    assert b"doe-john" in b"".join(one.path.encode() for one in scored.entries(0))  # the control
    assert private(out).stat().st_mode & 0o777 == 0o700


def test_a_manifest_or_listing_that_was_changed_is_refused(scored, request_for):
    path = scored.out / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"inputs": 24', '"inputs": 23'))
    with pytest.raises(InputError, match="was changed after it was written"):
        Plan.read(scored.out)
    path.write_text(text)
    with (private(scored.out) / "listing.parquet").open("ab") as file:
        file.write(b" ")
    with pytest.raises(InputError, match=r"listing\.parquet was changed after it was written"):
        score(request_for())


def test_a_folder_of_others_is_not_written_to(request_for, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="has files that score did not write"):
        score(request_for())
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_no_part_is_begun_before_the_manifest(request_for, monkeypatch):
    """Killed while the inputs are listed: the next run starts anew."""
    monkeypatch.setattr(
        "stageproof.serving.archive.run.Plan.write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        score(request_for())
    monkeypatch.undo()
    from stageproof.serving.archive.engines import ENGINES

    monkeypatch.setitem(ENGINES, "inline", "tests.serving.inline:Inline")
    assert score(request_for()).scored == 24


def test_a_second_runner_is_refused(scored, request_for):
    from stageproof.serving.archive.output.lock import locked

    with (
        locked(scored.out),
        pytest.raises(InputError, match="another process is scoring into"),
        locked(scored.out),
    ):
        pass


def test_the_probability_of_each_class_has_a_column_whatever_its_name():
    names = parts.schema(("status", "input"), ("blank",)).names
    assert len(set(names)) == len(names)
    assert names[-3:] == ["probability_status", "probability_input", "guard_blank"]


def test_a_disk_without_room_stops_the_run_and_keeps_what_is_whole(scored, request_for):
    """A limit on the size of files, which the kernel enforces as it does a full disk, in a process of its own."""
    import subprocess
    import sys

    plan = scored
    before = bytes_of(plan.out)
    plan.part(0).unlink()
    code = "import resource, signal, sys\nfrom tests.serving.test_score import limited\nlimited(sys.argv[1])\n"
    done = subprocess.run([sys.executable, "-c", code, str(plan.out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "part-00000000.parquet cannot be written: File too large. Finished parts are kept." in done.stdout
    assert {one.name for one in plan.parts.iterdir()} == set(before) - {"part-00000000.parquet"}
    assert score(request_for()).scored == 7
    assert bytes_of(plan.out) == before


def limited(out: str) -> None:
    """Write a part where no file may have more than 4 kB."""
    import resource
    import signal
    from pathlib import Path

    plan = Plan.read(Path(out))
    rows, _ = parts.read(plan.part(1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    columns = {name: rows.column(name).to_pylist() for name in rows.column_names}
    try:
        parts.write(plan.part(0), columns, rows.schema, plan.identity(0))
    except ArchiveError as error:
        print(error)  # noqa: T201


def test_an_output_that_cannot_be_written_is_refused(request_for, tmp_path):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ArchiveError, match="cannot be written: Not a directory"):
        score(request_for(out=file / "out"))
