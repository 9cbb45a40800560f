"""The documentation runs: its Python and its commands, its links, and its list of options.

A page is one namespace and one empty folder; its blocks run in order. A comment before a block says what else to do:
`<!-- not run: REASON -->` skips it; `<!-- file: NAME -->` saves it under that name; `<!-- exit: N -->` expects that
exit code of its commands, and every line shown under a command to be printed. Elsewhere what is shown under a command
is an example, and only its exit code, 0, is checked. A Python block with `>>>` runs as a doctest.
"""

import doctest
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import typer
import yaml
from torch.nn import Identity
from typer.testing import CliRunner

import smoothcert
import smoothcert.distributional
from smoothcert.cli.main import app
from smoothcert.objectives import build_objective
from smoothcert.parts import names_code
from smoothcert.version import __version__

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md",
         *(page for folder in (".", "methods", "own") for page in sorted(DOCS.glob(f"{folder}/*.md")))]
LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
FENCE = re.compile(r"^(?:<!-- (?P<note>[^\n]*) -->\n+)?```(?P<kind>[a-z]*)\n(?P<body>.*?)^```$", re.M | re.S)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CONTENTS = re.compile(r"^(?::::\{toctree\}|\.\. toctree::)\n(.*?)(?:^:::$|\Z)", re.M | re.S)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it starts on, and the note in the comment before it."""

    kind: str
    body: str
    line: int
    note: str

    @property
    def runs(self) -> bool:
        return self.kind in ("python", "console", "bash") and not self.note.startswith("not run:")

    @property
    def expected_exit(self) -> int:
        return int(self.note.removeprefix("exit:")) if self.note.startswith("exit:") else 0


def blocks(text: str) -> list[Block]:
    return [Block(m["kind"], m["body"], text[: m.start("body")].count("\n") + 1, m["note"] or "")
            for m in FENCE.finditer(text)]


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, each with the lines shown under it; a backslash at the end goes on with the next."""
    if block.kind == "bash":
        yield block.body, []
        return
    for part in re.split(r"^\$ ", block.body.replace("\\\n", " "), flags=re.M)[1:]:
        command, *shown = part.splitlines()
        yield command, [line.strip() for line in shown if line.strip()]


def run_command(command: str, folder: Path) -> tuple[int, str]:
    """The exit code of a command and what it printed. The shell splits the words of `smoothcert`, which then runs in
    this process: to start torch anew takes longer than most examples. What needs the shell for more runs in it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "MPLBACKEND": "Agg",
                   "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shell = partial(subprocess.run, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    if command.startswith("smoothcert ") and not re.search(r"[|&;<>]", command):
        words = shell(["bash", "-e", "-c", f"printf '%s\\0' {command}"], check=True).stdout.split("\0")[1:-1]
        with chdir(folder):
            told = CliRunner().invoke(app, words, env=environment, catch_exceptions=False)
        return told.exit_code, told.output
    done = shell(["bash", "-e", "-c", command], check=False)
    return done.returncode, done.stdout + done.stderr


def run_commands(page: Path, block: Block, folder: Path) -> None:
    for command, shown in commands(block):
        code, printed = run_command(command, folder)
        where = f"{page.name}, block at line {block.line}: $ {command}\n{printed}"
        assert code == block.expected_exit, f"exit code {code} in {where}"
        if block.note.startswith("exit:"):
            missing = [line for line in shown if line not in printed]
            assert not missing, f"not printed: {missing} in {where}"


def run_python(page: Path, block: Block, names: dict) -> None:
    if ">>> " not in block.body:
        code = "\n" * block.line + block.body  # so that a traceback names the page's own lines
        exec(compile(code, str(page), "exec"), names)
        return
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    test = doctest.DocTestParser().get_doctest(block.body, names, page.name, str(page), block.line)
    test.globs = names
    runner = doctest.DocTestRunner(optionflags=flags)
    printed: list[str] = []
    result = runner.run(test, out=printed.append, clear_globs=False)
    assert result.failed == 0, "".join(printed)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules = set(sys.modules)
    names: dict = {"__name__": "__main__"}
    try:
        with torch.random.fork_rng():
            for block in blocks(page.read_text(encoding="utf-8")):
                if block.note.startswith("file: "):
                    (tmp_path / block.note.removeprefix("file: ")).write_text(block.body, encoding="utf-8")
                elif block.runs and block.kind == "python":
                    run_python(page, block, names)
                elif block.runs:
                    run_commands(page, block, tmp_path)
    finally:
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_its_language_and_its_note_is_known(page):
    text = page.read_text(encoding="utf-8")
    found = blocks(text)
    assert len(re.findall(r"^```", text, re.M)) == 2 * len(found), "a fence is not closed, or not at a line's start"
    for block in found:
        assert block.kind in ("python", "console", "bash", "yaml", "text", "json"), f"line {block.line}: {block.kind!r}"
        assert re.fullmatch(r"|not run: .+|exit: [12]|file: [\w.]+", block.note), f"line {block.line}: {block.note!r}"


def test_contributing_names_the_files_and_rooms_that_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "smoothcert"
    for path in re.findall(r"[\w./-]+/[\w-]+\.(?:py|md|sh|yaml)\b", text):
        assert (package / path).exists() or (ROOT / path).exists(), path
    rows = text[text.index("| room |"):].split("\n\n")[0].splitlines()[2:]
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    assert [re.findall(r"`(\w+)(?:/|\.py)`", row.split("|")[1]) for row in rows] == [
        layer.split(" | ") for layer in layers]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if path == DOCS / "results":
            continue  # made by `make evidence`
        assert path.exists(), f"{page.name} links to {target}, and there is no {path}"
        if anchor:
            assert anchor in anchors(path), f"{page.name} links to {target}; headings there: {sorted(anchors(path))}"


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get, as repository hosts make them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def contents(page: Path) -> set[Path]:
    """The pages that a page's tables of contents name."""
    listed = [line.strip() for block in CONTENTS.findall(page.read_text(encoding="utf-8"))
              for line in block.splitlines() if line.strip() and not line.strip().startswith(":")]
    return {path for name in listed for ending in (".md", ".rst") for path in page.parent.glob(name + ending)}


def test_the_index_reaches_every_page():
    reached, found = set(), {DOCS / "index.md"}
    while found:
        reached |= found
        found = {path for page in found for path in contents(page)} - reached
    assert reached == {*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")}


def test_the_python_pages_name_modules_that_exist_once_each():
    named = [name for page in DOCS.glob("api/*.rst")
             for name in re.findall(r"^\.\. automodule:: (\S+)$", page.read_text(encoding="utf-8"), re.M)]
    assert len(set(named)) == len(named)
    assert [name for name in named if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("package", [smoothcert, smoothcert.distributional], ids=lambda package: package.__name__)
def test_the_python_pages_hold_what_a_package_exports(package):
    text = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("api/*.rst"))
    pages = tuple(f"{page}." for page in re.findall(r"^\.\. automodule:: (\S+)$", text, re.M))
    homes = {name: f"{getattr(package, name).__module__}." for name in package.__all__ if name != "__version__"}
    assert {name for name, home in homes.items() if not home.startswith(pages)} == set()


def test_objectives_take_the_options_that_pages_give_them():
    seen = set()
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            for words in (shlex.split(command) for command, _ in commands(block) if "--objective " in command):
                pairs = list(pairwise(words))
                (name,) = (value for option, value in pairs if option == "--objective")
                given = [value.split("=", 1) for option, value in pairs if option == "--objective-option"]
                if names_code(name) or page.name == "package.md":
                    continue  # parts that the page itself brings
                judge = {"classifier": Identity()} if "--classifier" in words else {}
                build_objective(name, sigma=0.5, **{key: yaml.safe_load(value) for key, value in given}, **judge)
                seen.add(name)
    assert seen >= {"gaussian", "smoothadv", "adre", "macer", "consistency", "stability", "trades", "deen", "xhat",
                    "smoothmix", "cat-rs"}


def test_the_citation_file_names_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert all(work["title"] and work["authors"] and work["year"] for work in cited["references"])


def test_the_command_line_page_names_every_option_and_no_other():
    text = (DOCS / "command-line.md").read_text(encoding="utf-8")
    group = typer.main.get_command(app)
    verbs = group.commands  # type: ignore[attr-defined]
    kinds = verbs["plot"].commands
    options = {option for command in (group, *verbs.values(), *kinds.values()) for parameter in command.params
               for option in parameter.opts if option.startswith("--")} | {"--help"}
    assert set(OPTION.findall(text)) == options
    assert {verb for verb in verbs if f"smoothcert {verb}" in text} == set(verbs)
    pictures = (DOCS / "pictures.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", pictures, re.M)) == set(kinds)


@pytest.mark.parametrize(("text", "words"), [
    ("```python\nassert 1 == 2\n```\n", None),
    ("```python\n>>> 1 + 1\n3\n```\n", "Expected"),
    ("```console\n$ exit 3\n```\n", "exit code 3"),
    ("```console\n$ false; true\n```\n", "exit code 1"),
    ("<!-- exit: 1 -->\n```console\n$ true\n```\n", "exit code 0"),
    ("<!-- exit: 1 -->\n```console\n$ echo this; exit 1\nthat\n```\n", "not printed"),
])
def test_a_broken_example_is_noticed(tmp_path, text, words):
    (block,) = blocks(text)
    run = (lambda: run_python(Path("page.md"), block, {})) if block.kind == "python" else (
        lambda: run_commands(Path("page.md"), block, tmp_path))
    with pytest.raises(AssertionError, match=words):
        run()
