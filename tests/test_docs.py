"""The documentation: blocks are run or say why not; options, links and quoted messages exist; the nav is complete."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path

import pytest

from stageproof.commands import MODULES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
HERE = "tests/test_docs.py"
WALK = "tests/test_readme.py"
FOLDERS = ("runtime", "train", "export", "serving", "benchmarks", "stageproof")
BLOCK = re.compile(r"^(?P<above>[^\n]*)\n```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (?:(?P<run>tested|runs): (?P<where>.+)|not run: (?P<reason>\S+ .+)) -->")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path, *kinds: str) -> list[tuple[str, str]]:
    """(line above, text) of each fenced block of these kinds."""
    found = BLOCK.finditer("\n" + page.read_text(encoding="utf-8"))
    return [(one["above"], one["text"]) for one in found if one["kind"] in kinds]


def commands(text: str) -> list[str]:
    """What follows a `$ ` prompt, with lines that a backslash continues; without comments."""
    joined = re.sub(r"\\\n\s*", "", text)
    return [re.split(r"\s+#\s", line)[0].strip() for line in re.findall(r"^\$ (.+)$", joined, re.MULTILINE)]


def run_here() -> list[tuple[str, str, str]]:
    """(page, kind, text) of the blocks that this file runs."""
    found = []
    for page in PAGES:
        for kind in ("console", "python"):
            marked = [text for above, text in blocks(page, kind) if f"<!-- runs: {HERE}" in above]
            found += [(name(page), kind, text) for text in marked]
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_block_is_run_or_says_why_not(page):
    for above, text in blocks(page, "console", "bash", "sh"):
        mark = MARK.fullmatch(above)
        assert mark, f"{name(page)}: no <!-- runs: … --> or <!-- not run: REASON --> above\n{text}"
        assert not mark["where"] or HERE in mark["where"] or WALK in mark["where"], mark["where"]


def test_the_control_a_block_without_a_mark_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("Words.\n\n```console\n$ python -m train\n```\n", encoding="utf-8")
    assert [MARK.fullmatch(above) for above, _ in blocks(page, "console")] == [None]


def test_blocks_that_the_readme_runs_are_those_of_the_readme():
    """A block that names the README's walk begins with a command of it; what else it shows is said in its mark."""
    walked = commands(blocks_marked(ROOT / "README.md", "tested")[0])
    shown = [commands(text) for page in PAGES for text in blocks_marked(page, "runs", WALK)]
    assert len(shown) >= 3
    for each in shown:
        assert each[0] in walked


def blocks_marked(page: Path, how: str, where: str = "") -> list[str]:
    marks = [(MARK.fullmatch(above), text) for above, text in blocks(page, "console")]
    return [text for mark, text in marks if mark and mark["run"] == how and where in mark["where"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the guides name: a bundle and a scan."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copy(ROOT / "scan.jpg", folder)
    shutil.copytree(ROOT / "tests" / "data" / "bundle-0.1", folder / "bundle")
    return folder


@pytest.mark.parametrize(
    ("page", "kind", "text"), run_here(), ids=lambda value: value if "\n" not in value else "block"
)
def test_block_runs(page, kind, text, place):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**plain, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    steps = commands(text) if kind == "console" else [shlex.join([sys.executable, "-c", text])]
    assert steps
    for step in steps:
        done = subprocess.run(step, shell=True, cwd=place, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, f"{page}: $ {step}\n{done.stdout}\n{done.stderr}"


def test_some_blocks_run_here():
    assert len(run_here()) >= 4


def shown() -> list[tuple[str, str, list[str]]]:
    """(page, module, options) of each command of ours in a block of any page."""
    by_name = {command: module for module, command in MODULES.items()}
    found = []
    for page in PAGES:
        for _, text in blocks(page, "console", "bash", "sh"):
            for command in commands(text):
                words = shlex.split(command)
                ours = None
                if words[:2] == ["python", "-m"] and words[2].partition(".")[0] in FOLDERS:
                    ours, words = words[2], words[3:]
                elif words[0] == "stageproof" and words[1:2] and not words[1].startswith("-"):
                    ours, words = by_name[words[1]], words[2:]
                if ours is not None:
                    part = [words[0]] if words and words[0] in ("serving", "train", "verify", "key") else []
                    options = [word.partition("=")[0] for word in words if word.startswith("--")]
                    found.append((name(page), " ".join([ours, *part]), options))
    return found


def test_every_option_in_the_docs_exists(helps):
    found = shown()
    assert len(found) > 25
    for page, command, options in found:
        text = helps[command].text
        text += helps["train"].text if command == "train.crossvalidate" else ""  # which hands the others on
        known = set(re.findall(r"--[\w.-]+", text))
        assert set(options) <= known | {"--help"}, f"{page}: python -m {command} has no {set(options) - known}"


def test_the_table_of_two_names_is_that_of_the_code():
    rows = re.findall(r"^\| `python -m ([\w.]+)` \| `stageproof (\w+)` \|", (DOCS / "quick-start.md").read_text(), re.M)
    assert dict(rows) == MODULES


def anchor(heading: str) -> str:
    """As the toc extension of Python-Markdown makes it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_anchors_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)} links to {target}"
        assert ROOT in there.parents or there == ROOT
        if page.is_relative_to(DOCS):
            assert there.is_relative_to(DOCS), f"{name(page)} links out of the site: {target}"
        if fragment:
            headings = re.findall(r"^#+ (.+)$", prose(there), re.MULTILINE)
            assert fragment in map(anchor, headings), f"{name(page)} links to {target}"


def test_the_readme_is_short_and_names_no_registry():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    hosts = re.compile(r"pypi|pythonhosted|anaconda\.org|npmjs|unpkg|jsdelivr", re.IGNORECASE)
    files = [*PAGES, ROOT / "mkdocs.yml", ROOT / "Makefile", ROOT / "setup.cfg", ROOT / "CITATION.cff"]
    assert [name(page) for page in files if hosts.search(page.read_text(encoding="utf-8"))] == []


def test_every_page_has_a_place_in_the_site():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    listed = re.findall(r"([\w/-]+\.md)$", nav, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_site_loads_nothing_from_other_hosts():
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "://" not in settings
    assert "font: false" in settings
    assert "://" not in "".join(path.read_text(encoding="utf-8") for path in (DOCS / "assets").iterdir())


def test_the_reference_has_every_public_name_of_the_runtime():
    tree = ast.parse((ROOT / "runtime" / "__init__.py").read_text(encoding="utf-8"))
    (public,) = [
        ast.literal_eval(one.value)
        for one in tree.body
        if isinstance(one, ast.Assign) and getattr(one.targets[0], "id", "") == "__all__"
    ]
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: stageproof\.runtime\.(\w+)$", page, re.MULTILINE)) == sorted(
        set(public) - {"NeuroStageError"}
    )
    assert "NeuroStageError" in page


@cache
def messages() -> str:
    """Every string of our source, one a line; what a formatted one puts in is …"""
    found = []
    for path in (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)))
    return "\n".join(found)


def test_quoted_messages_are_those_of_the_code():
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(quoted) >= 24
    assert len(set(quoted)) == len(quoted)
    lost = [
        part.strip() for one in quoted for part in one.split("…") if part.strip() and part.strip() not in messages()
    ]
    assert lost == []
    sections = re.split(r"^### .+$", page, flags=re.MULTILINE)[1:]
    assert all("**Cause.**" in one and "**Next.**" in one for one in sections)


def test_modules_that_the_architecture_names_exist():
    rows = re.findall(r"^\| `([\w.]+)` \|", (DOCS / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) > 15
    wanted = [ROOT / row.replace(".", "/") for row in rows]
    assert [str(one) for one in wanted if not one.is_dir() and not one.with_suffix(".py").is_file()] == []


def test_the_citation_names_the_project_and_no_person():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert "\ntitle: Stageproof\n" in text
    assert "\ntype: software\n" in text
    assert "\nlicense: Apache-2.0\n" in text
    assert re.findall(r"^  - (.+: .+)$", text, re.MULTILINE) == ['name: "The Stageproof authors"']
    assert "given-names" not in text


def test_the_makefile_builds_the_site():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "\ndocs: $(VENV)/.docs tree\n\tNO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict\n" in makefile
    assert "build/\n" in (ROOT / ".gitignore").read_text(encoding="utf-8")
