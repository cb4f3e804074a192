"""The bill of materials lists what is there, is valid CycloneDX, and travels sealed in the bundle."""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import shutil
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from stageproof.export.sbom.__main__ import main
from stageproof.export.sbom.bundle import SBOM, SOUP, with_sbom
from stageproof.export.sbom.component import model_component
from stageproof.export.sbom.distributions import Distribution, installed, provider
from stageproof.export.sbom.document import as_text, bundle_document, environment_document
from stageproof.export.sbom.model_card import model_card
from stageproof.export.sbom.needs import RUNTIME, Use, needs
from stageproof.export.sbom.soup import soup
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError
from stageproof.train.push.plan import plan

ROOT = Path(__file__).resolve().parents[2]
CREATED = "2026-01-31T12:00:00Z"


def problem(document: dict) -> str:
    """What the strict validator of CycloneDX 1.6 finds wrong; "" if nothing."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(as_text(document))
    return "" if error is None else str(error)


def by_ref(document: dict) -> dict[str, dict]:
    return {component["bom-ref"]: component for component in document["components"]}


@pytest.fixture
def plant(tmp_path):
    """Function: a folder of distributions to put on the import path, extended by one with these lines of metadata.
    origin: its direct_url.json."""

    def write(folder: str, text: str, origin: dict | None = None) -> Path:
        place = tmp_path / "site" / f"{folder}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(text, encoding="utf-8")
        (place / "RECORD").write_text("planted/__init__.py,sha256=abc,3\n", encoding="utf-8")
        if origin is not None:
            (place / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
        return tmp_path / "site"

    return write


def installed_in(site: Path) -> tuple[Distribution, ...]:
    """The distributions of an environment that has nothing but `site`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(site)])
        return installed()


def test_every_distribution_of_the_environment_is_listed(tmp_path, capsys, plant, monkeypatch):
    version = metadata.version("numpy")
    site = plant("planted-2.0", "Name: planted\nVersion: 2.0\nLicense-Expression: MIT OR Apache-2.0\n")
    plant("numpy-0.1", "Name: numpy\nVersion: 0.1\n")  # in front of the other one
    monkeypatch.syspath_prepend(str(site))
    old = ROOT / "tests" / "data" / "bundle-0.1"  # without a bill of materials: its component is made from the manifest
    assert main(["--bundle", str(old), "--out", str(tmp_path / SBOM)]) == 0
    document = json.loads((tmp_path / SBOM).read_text("utf-8"))
    model, found = document["components"][0], by_ref(document)
    assert model["type"] == "machine-learning-model"
    assert model["hashes"][0]["content"] == read_manifest(old).model.digest
    assert "quantitativeAnalysis" not in model["modelCard"]
    here = {(str(canonicalize_name(one.metadata["Name"])), one.version) for one in metadata.distributions()}
    assert {("planted", "2.0"), ("numpy", "0.1"), ("numpy", version)} <= here
    assert len(here) > 50
    for name, version in here:
        one = found.get(f"pkg:pypi/{name}@{version}") or found[f"pkg:generic/{name}@{version}"]
        assert (str(canonicalize_name(one["name"])), one["version"]) == (name, version)
    assert found["pkg:pypi/planted@2.0"]["licenses"] == [
        {"expression": "MIT OR Apache-2.0", "acknowledgement": "declared"}
    ]
    listed = {name for name, _ in here} | {"stageproof"}
    assert f"{len(here) + len(listed) - len({name for name, _ in here})} distributions, and the model of {old}" in (
        capsys.readouterr().out
    )


def test_metadata_without_a_name_is_a_warning(plant, said):
    plant("whole-1.0", "Name: whole\nVersion: 1.0\n")
    assert [one.name for one in installed_in(plant("~umpy-1.0", "Version: 1.0\n"))] == ["whole"]
    assert any("has metadata without a name" in line for line in said)


def test_what_was_installed_from_a_folder_has_neither_its_path_nor_a_public_package_url(plant):
    plant("local-1.0", "Name: local\nVersion: 1.0\n", {"url": "file:///home/zyxwvutsson/local", "dir_info": {}})
    archive = {"url": "https://example.org/fetched-1.0.whl", "archive_info": {"hashes": {"sha256": "ab" * 32}}}
    site = plant("fetched-1.0", "Name: fetched\nVersion: 1.0\n", archive)
    document = environment_document(installed_in(site), CREATED)
    assert "zyxwvutsson" not in as_text(document)
    found = by_ref(document)
    assert found["pkg:generic/local@1.0"]["purl"] == "pkg:generic/local@1.0"
    assert found["pkg:generic/fetched@1.0"]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    record = (site / "local-1.0.dist-info" / "RECORD").read_bytes()
    expected = {"name": "stageproof:record-sha256", "value": hashlib.sha256(record).hexdigest()}
    assert expected in found["pkg:generic/local@1.0"]["properties"]


@pytest.mark.parametrize(
    ("lines", "licences"),
    [
        ("License-Expression: BSD-3-Clause\nLicense: something else", ("BSD-3-Clause",)),
        ("License: MIT\nClassifier: License :: OSI Approved :: BSD License", ("MIT",)),
        ("License: UNKNOWN\nClassifier: License :: OSI Approved :: ISC License (ISCL)", ("ISC License (ISCL)",)),
        ("License: The Licence\n        \n        Permission is granted", ("The Licence",)),
        ("License: " + "x" * 300 + "\nClassifier: License :: OSI Approved :: BSD License", ("BSD License",)),
        ("Classifier: License :: OSI Approved", ()),
        ("Summary: none", ()),
    ],
)
def test_the_licence_is_what_the_distribution_states(plant, lines, licences):
    [one] = installed_in(plant("stated-1.0", f"Name: stated\nVersion: 1.0\n{lines}\n"))
    assert one.licences == licences


def test_extras_that_others_request_count_as_required(plant):
    plant("outer-1.0", "Name: outer\nVersion: 1.0\nRequires-Dist: inner[more]>=1\n")
    inner = (
        'Name: inner\nVersion: 1.0\nProvides-Extra: more\nProvides-Extra: less\nRequires-Dist: numpy; extra == "more"\n'
    )
    inner += 'Requires-Dist: pillow; extra == "less"\nRequires-Dist: torch; sys_platform == "no"\n'
    found = {one.key: one for one in installed_in(plant("inner-1.0", inner))}
    assert found["outer"].requires == ("inner",)
    assert found["inner"].requires == ("numpy",)


def test_what_the_runtime_needs_is_what_setup_cfg_says():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    required = settings["options"]["install_requires"].split("\n")
    assert set(RUNTIME) == {str(canonicalize_name(Requirement(line).name)) for line in required if line}


def test_modules_lead_to_their_distributions():
    assert provider("PIL") == "pillow"
    assert provider("torch") == "torch"
    assert provider("no_such_module") is None


def test_an_engine_is_required_if_it_is_the_only_one(tiny_bundle, small_bundle):
    found = {one.key: one for one in installed()}
    several = needs(read_manifest(tiny_bundle), found)
    assert several["onnxruntime"].use is several["openvino"].use is several["torch"].use is Use.OPTIONAL
    assert several["numpy"].use is several["pillow"].use is Use.REQUIRED
    assert several["onnxruntime"].where == "model.onnx"
    assert several["sympy"].where.startswith("required by ")
    assert "pytest" not in several
    manifest = read_manifest(small_bundle)
    [artifact] = manifest.artifacts
    one = tuple(check for check in artifact.checks if check.backend == "onnx")
    single = needs(replace(manifest, artifacts=(replace(artifact, checks=one),)), found)
    assert single["onnxruntime"].use is single["flatbuffers"].use is Use.REQUIRED
    assert "torch" not in single
    elsewhere = needs(manifest, {})
    assert {*RUNTIME, "onnxruntime"} <= set(elsewhere), "also where it is not installed"


def test_a_bundle_has_both_files_and_its_seal_covers_them(small_bundle, tmp_path):
    manifest = verified(small_bundle)
    assert {SBOM, SOUP} <= {entry.file for entry in manifest.documents}
    for name in (SBOM, SOUP):
        bundle = tmp_path / name.partition(".")[0]
        shutil.copytree(small_bundle, bundle)
        text = (bundle / name).read_text("utf-8")
        (bundle / name).unlink()  # it may be linked to the file of the other bundle
        (bundle / name).write_text(text.replace("numpy", "numpie"), encoding="utf-8")
        with pytest.raises(BundleError, match=rf"{name} has SHA-256 .* the file was changed after export"):
            verified(bundle)


def test_the_document_of_a_bundle_describes_its_files_and_its_model(small_bundle):
    manifest = read_manifest(small_bundle)
    document = json.loads((small_bundle / SBOM).read_text("utf-8"))
    model = document["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": manifest.model.digest}]
    assert document["metadata"]["timestamp"] == manifest.provenance["exported"].replace("Z", "+00:00")
    listed = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    assert listed == {one.file: one.sha256 for one in manifest.files if one.file not in (SBOM, SOUP)}
    card = model["modelCard"]
    assert card["modelParameters"]["modelArchitecture"] == manifest.model.architecture
    assert "quantitativeAnalysis" not in card, "this run was not evaluated"
    limitations = card["considerations"]["technicalLimitations"]
    assert any(line.startswith("Research use only: not a medical device") for line in limitations)
    assert any("was not evaluated" in line for line in limitations)
    assert [one["name"] for one in card["modelParameters"]["datasets"]] == [
        "user data, training",
        "user data, held out",
    ]
    scopes = {one["name"]: one["scope"] for one in document["components"]}
    assert scopes["numpy"] == scopes["stageproof"] == "required"
    assert scopes["onnxruntime"] == "optional"
    assert scopes["pytest"] == "excluded"
    depends = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert any(ref.startswith("pkg:pypi/onnxruntime@") for ref in depends["model"])
    refs = {model["bom-ref"], *by_ref(document)}
    assert {ref for listed in depends.values() for ref in listed} <= refs


def test_no_path_of_this_machine_is_in_a_bundle(small_bundle):
    """The search that every upload makes finds none, and both files are uploaded."""
    assert {SBOM, SOUP} <= set(plan(small_bundle).files)


def few(found: tuple[Distribution, ...]) -> tuple[Distribution, ...]:
    """A part of the environment: the validator takes seconds for all of it."""
    return tuple(one for one in found if one.key in ("numpy", "pillow", "scipy", "cryptography", "onnxruntime"))


def test_documents_pass_the_strict_validator(small_bundle, plant):
    hostile = 'Name: host|ile\nVersion: 1.0+"<b>\nLicense: `x` | "GPL" \\ OR AND (\nSummary: a\tb <script> \u202e\n'
    site = plant(
        "host-1.0", hostile + "Project-URL: Issues, https://example.org/a|b c\nProject-URL: Source, javascript:x\n"
    )
    found = few(installed()) + installed_in(site)
    assert [one.name for one in installed_in(site)] == ["host|ile"]
    manifest = read_manifest(small_bundle)
    needed = needs(manifest, {one.key: one for one in found})
    document = bundle_document(manifest, found, needed, model_card(manifest, None), CREATED)
    assert problem(document) == ""
    card = document["metadata"]["component"]["modelCard"]
    card["modelParameters"]["approach"]["type"] = "guessed"
    assert "guessed" in problem(document), "the control: the validator looks into the card"


@pytest.mark.slow
def test_whole_documents_pass_the_strict_validator(small_bundle, tiny_bundle, tmp_path):
    for bundle in (small_bundle, tiny_bundle):
        assert problem(json.loads((bundle / SBOM).read_text("utf-8"))) == ""
        assert main(["--bundle", str(bundle), "--out", str(tmp_path / SBOM)]) == 0
        document = json.loads((tmp_path / SBOM).read_text("utf-8"))
        assert problem(document) == ""
        assert document["components"][0] == model_component(bundle, read_manifest(bundle))


def test_equal_bundles_and_environments_give_equal_bytes(small_bundle, tmp_path):
    """And a rebuild, which has no evaluation to read, keeps the model card."""
    manifest = read_manifest(small_bundle)
    plain = replace(manifest, documents=tuple(one for one in manifest.documents if one.file not in (SBOM, SOUP)))
    again = with_sbom(plain, tmp_path, None, small_bundle)
    assert again == manifest, "the digests of both files, and so their bytes, are those of the export"
    assert model_card(manifest, None) != model_component(small_bundle, manifest)["modelCard"]
    found, needed = few(installed()), {}
    serials = [
        bundle_document(plain, found[:count], needed, {}, created)["serialNumber"]
        for count, created in ((2, CREATED), (2, CREATED), (3, CREATED), (2, "2027-01-01T00:00:00Z"))
    ]
    assert serials[0] == serials[1]
    assert len(set(serials)) == 3


def test_the_command_refuses_what_it_cannot_do(small_bundle, tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert "is a folder. Expected a file" in capsys.readouterr().err
    assert main(["--out", str(tmp_path / "none" / SBOM)]) == 2
    assert "in a folder that does not exist" in capsys.readouterr().err
    bundle = tmp_path / "bundle"
    shutil.copytree(small_bundle, bundle)
    (bundle / "added.txt").write_text("x")
    assert main(["--bundle", str(bundle), "--out", str(tmp_path / SBOM)]) == 2
    assert "is not listed in the manifest" in capsys.readouterr().err
    assert not (tmp_path / SBOM).exists()


def test_soup_is_a_table_of_the_same_distributions(small_bundle):
    text = (small_bundle / SOUP).read_text("utf-8")
    document = json.loads((small_bundle / SBOM).read_text("utf-8"))
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith(("| name", "| ---"))]
    cells = {row.split(" | ")[0].lstrip("| ").replace("\\", "") for row in rows}
    assert cells == {one["name"] for one in document["components"]} - {"stageproof"}
    needed, _, rest = text.partition("## Installed where the bundle was exported")
    assert "| onnxruntime |" in needed
    assert "| pytest |" in rest
    assert "| pytest |" not in needed
    assert "arrays, preprocessing and probabilities | stageproof.runtime | yes" in needed
    assert "[issues of numpy](<https://github.com/numpy/numpy/issues>)" in needed


def test_hostile_metadata_stays_in_its_cell_of_soup():
    one = Distribution("a|b", "1`0", ("MIT\n| forged |",), "<script>[x](javascript:y)", "", ())
    text = soup([one], {}, CREATED, "0", "ab" * 32)
    [row] = [line for line in text.splitlines() if "forged" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    assert "<script>" not in text.replace("\\<script>", "")
    assert "](javascript" not in text.replace("\\](javascript", "")
