"""The check of .pt2 files that are read without trust: all of their parts must be of kinds that cannot run code.

`torch.export.load` unpickles parts of a file, evaluates its expressions, and writes Python from its names (seen in
2.13). So an archive is read here first, and every part of it has to be of a known kind: raw tensors, example inputs
that `weights_only` unpickles, and a program whose steps are aten operators, whose names are names and whose expressions
are arithmetic. torch then gets a new archive of just these parts, so that a second reading cannot find anything else.
"""

import io
import json
import re
import zipfile
from collections.abc import Callable
from typing import Any

import torch

from smoothcert.errors import SmoothcertError
from smoothcert.limits import check_unpacked_size, from_json

_NAME = r"[A-Za-z0-9_.]*"
_STEP = (r"torch\.ops\.aten\.(?!from_file\b)(?!__)\w+\.(?!__)\w+|torch\.ops\.higher_order\.wrap_with_set_grad_enabled"
         r"|_operator\.(add|sub|mul|floordiv|truediv|mod|neg|getitem|eq|ne|lt|le|gt|ge)|torch\.sym_(int|float|max|min)")
_KNOWN = "|".join(("Symbol", "Integer", "Add", "Mul", "Max", "Min", "Mod", "FloorDiv", "CeilDiv", "positive", "integer",
                   "nonnegative", "True", "False"))
_EXPRESSION = rf"(({_KNOWN}|[su]\d+)\b|'[su]\d+'|\d{{1,18}}|[-+%(),= ]|\*(?!\*)|/)*"
_SIZE = r"([su]\d+|\d{1,18}|[-+() ]|\*(?!\*))+"
_GUARD = r"(L\['[A-Za-z_]\w*'\]|\.size\(\)\[\d+\]|\b(and|or|not)\b|\d{1,18}|[-+%()<>=! ]|\*(?!\*))*"

_STRINGS = {
    "target": _STEP, "as_operator": _STEP, "expr_str": _EXPRESSION, "guards_code": _GUARD, "type": "cpu|cuda",
    "torch_version": r"[\w.+-]*", "verifiers": "[A-Z]*", "as_string": r"(?s).*", "path_name": r"\w+",
    "as_float": "-?Infinity|NaN",
    **dict.fromkeys(("name", "as_name", "parameter_name", "buffer_name", "tensor_constant_name", "fqn",
                     "forward_arg_names"), _NAME),
}
"""Patterns that the strings of a program must match, by the key that they are under; no other key may hold strings."""

_DROPPED = {"metadata", "nn_module_stack", "stack_trace"}
"""Notes about a step that are not needed to run it."""

_SPECS = {"in_spec", "out_spec"}
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}


class UnsafeArchive(SmoothcertError):
    """A part of a file is not of a kind that is known to be harmless."""


def rebuild_archive(path: str, content: bytes) -> bytes:
    """Return the archive of a .pt2 file made anew from its parts, all of which are known to be harmless.

    Raises:
        UnsafeArchive: a part that is not. FileError: a part that is corrupt or too large.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as given, zipfile.ZipFile(made, "w") as again:
        parts = given.infolist()
        check_unpacked_size(path, len(content), sum(part.file_size for part in parts))
        if len({part.filename.lower() for part in parts}) != len(parts):
            raise UnsafeArchive("it has two parts of one name")
        for part in parts:
            again.writestr(zipfile.ZipInfo(part.filename), _check_part(part.filename, given.read(part)))
    return made.getvalue()


def _check_part(name: str, content: bytes) -> bytes:
    for pattern, check in _PARTS.items():
        if re.fullmatch(rf"(?!\.+/)[^/\\\x00-\x1f]+/{pattern}", name):
            return check(name, content)
    raise UnsafeArchive(f"its part {name!r} is of an unknown kind")


def _check_tensors(name: str, content: bytes) -> bytes:
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever keeps torch from it, with what it does then
        raise UnsafeArchive(f"its part {name!r} holds more than tensors: {type(error).__name__}") from None
    return content


def _check_json(name: str, content: bytes) -> bytes:
    return json.dumps(_check_value(name, "", from_json(content, name))).encode()


_PARTS: dict[str, Callable[[str, bytes], bytes]] = {
    r"data/(weights/weight|constants/tensor)_\d+": lambda name, content: content,
    r"(archive_format|archive_version|byteorder|\.data/version|\.data/serialization_id)": lambda name, content: content,
    r"data/sample_inputs/[\w.-]+\.pt": _check_tensors,
    r"data/(weights|constants)/[\w.-]+_config\.json": _check_json,
    r"models/[\w.-]+\.json": _check_json,
}


def _check_value(part: str, key: str, value: Any) -> Any:
    """Return the value under `key` of a JSON part without the notes in it. Raises UnsafeArchive."""
    if isinstance(value, dict):
        for name in value:
            _match(part, key, name, _SIZE if key == "range_constraints" else _NAME)
        if value.get("use_pickle"):
            raise UnsafeArchive(f"its part {part!r} names values that are pickled")
        return {name: {} if name in _DROPPED else _check_value(part, name, child) for name, child in value.items()}
    if isinstance(value, list):
        return [_check_value(part, key, child) for child in value]
    if isinstance(value, str) and key in _SPECS:
        _check_spec(part, from_json(value, part))
    elif isinstance(value, str):
        _match(part, key, value, _STRINGS.get(key))
    return value


def _match(part: str, key: str, text: str, pattern: str | None) -> None:
    if pattern is None or not re.fullmatch(pattern, text):
        raise UnsafeArchive(f"its part {part!r} has {text!r:.80} under {key!r}")


def _check_spec(part: str, spec: Any) -> None:
    """Raise UnsafeArchive unless arguments are packed in plain containers: a version and a tree."""
    trees = [spec[1]] if isinstance(spec, list) and len(spec) == 2 and isinstance(spec[1], dict) else [spec]
    while trees:
        tree = trees.pop()
        if not isinstance(tree, dict) or tree.get("type") not in _CONTAINERS or set(tree) - {
                "type", "context", "children_spec"}:
            raise UnsafeArchive(f"its part {part!r} packs arguments in {tree!r:.80}")
        _match(part, "context", str(tree.get("context")), r'null|None|\[("\w+"(, "\w+")*)?\]')
        trees.extend(tree.get("children_spec") or [])
