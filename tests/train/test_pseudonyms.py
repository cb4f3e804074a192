"""Names that leave the machine are digests that only the local key can open."""

from __future__ import annotations

import json

import pytest

from stageproof.train.runs.pseudonyms import Pseudonyms, public_run, public_source


def test_a_digest_depends_on_the_key_and_the_file_is_private(tmp_path):
    one, other = Pseudonyms(), Pseudonyms()
    assert one.of("Mueller.png") != other.of("Mueller.png")
    assert one.of("Mueller.png") == Pseudonyms(one.key).of("Mueller.png")
    path = tmp_path / "names.json"
    path.write_text("old")
    path.chmod(0o644)
    one.write(path, ["Mueller.png", "bad\udcff.png"])
    assert path.stat().st_mode & 0o777 == 0o600
    content = json.loads(path.read_text())
    assert content["names"][one.of("Mueller.png")] == "Mueller.png"


@pytest.mark.parametrize(
    ("source", "public"),
    [
        ("/home/mueller/a b.parquet", "user data"),
        ("mueller, with 4 of people who are not in it", "user data, with 4 of people who are not in it"),
        ("/data/x, ten sizes/mueller", "user data"),
        ("/data/x, ten sizes, grey and colour", "user data, ten sizes, grey and colour"),
        ("phantom(patients=24, slices=6, size=128, seed=0)", "phantom(patients=24, slices=6, size=128, seed=0)"),
    ],
)
def test_data_is_not_called_by_its_name(source, public):
    assert public_source(source) == public


def test_a_run_that_the_user_named_is_called_by_its_weights():
    assert public_run("20261130-091500-demo", "ab" * 32) == "20261130-091500-demo"
    assert public_run("mueller", "ab" * 32) == "run-abababababab"
