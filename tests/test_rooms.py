"""The rules of CONTRIBUTING.md that no linter knows: one home a class, short functions, plain docstrings."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src" / "smoothcert"
MODULES = {path: ast.parse(path.read_text()) for path in sorted(SOURCES.rglob("*.py"))}
LONGEST = 60
FROZEN = {f"{name}.py" for name in (
    "models/convolutional", "denoise/composed", "denoise/estimators", "denoise/walks", "smoothing/adapters",
    "smoothing/protocols")}
"""Files whose text is part of identities (tests/classifiers/test_frozen.py), so that their wording has to stay."""


def named(kind: type | tuple[type, ...]) -> Iterator[tuple[Path, ast.AST]]:
    for path, tree in MODULES.items():
        yield from ((path.relative_to(SOURCES), node) for node in ast.walk(tree) if isinstance(node, kind))


def test_a_class_has_one_home():
    homes = {(str(path), node.name) for path, node in named(ast.ClassDef)}
    assert [name for name, count in Counter(name for _, name in homes).items() if count > 1] == []


def test_functions_read_from_top_to_bottom():
    long = {f"{path}:{node.name}": length for path, node in named((ast.FunctionDef, ast.AsyncFunctionDef))
            if (length := node.end_lineno - node.lineno + 1) > LONGEST}
    assert long == {}


@pytest.mark.parametrize("word", ["What", "Whether"])
def test_a_docstring_starts_with_what_a_function_does(word):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    found = [f"{path}: {text[:60]}" for path, node in named(kinds)
             if (text := ast.get_docstring(node) or "").split(" ")[0] == word and str(path) not in FROZEN]
    assert found == []


def test_an_identity_is_read_by_its_attributes():
    """The mapping itself is for comparison and for writing: `identity.raw`."""
    keyed = [f"{path}:{node.lineno}" for path, node in named(ast.Subscript)
             if isinstance(node.value, ast.Attribute) and node.value.attr == "identity"
             and isinstance(node.value.value, ast.Name) and node.value.value.id in ("store", "readable", "run")]
    assert keyed == []
