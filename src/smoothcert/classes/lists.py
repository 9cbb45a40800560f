"""Lists of class names, as files, models and their metadata give them."""

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.errors import FileError, InputError
from smoothcert.limits import CLASSES, bounded_bytes, from_json, within

FILE_BYTES = 1 << 26
"""The most bytes of a file of class names, or of a text in a model that lists them."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

Label = int | str


def index_names(count: int) -> tuple[str, ...]:
    """Return the names "0", "1", ... for classes that have none of their own.

    >>> index_names(3)
    ('0', '1', '2')
    """
    return tuple(map(str, range(count)))


def read_class_names(given: Any) -> tuple[str, ...]:
    """Return class names from a list, or from a file: one a line, or JSON: a list, {index: name} or {name: index}.

    Raises FileError for a file that cannot be read, InputError for content other than names.
    """
    if isinstance(given, str | os.PathLike):
        path = Path(given).expanduser()
        return _check_names(_parse_names(bounded_bytes(path, FILE_BYTES), str(path)), str(path))
    return _check_names(given, "classes")


def names_by_index(mapping: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Return the names of {index: name} or {name: index} in the order of indices, None unless these are 0 to K - 1.

    >>> names_by_index({"1": "dog", "0": "cat"}), names_by_index({"dog": 1, "cat": 0}), names_by_index({"3": "cat"})
    (('cat', 'dog'), ('cat', 'dog'), None)
    """
    by_name = mapping and all(_is_index(value) for value in mapping.values())
    pairs = {str(v): k for k, v in mapping.items()} if by_name else {str(k): v for k, v in mapping.items()}
    wanted = index_names(len(mapping))
    if not mapping or set(pairs) != set(wanted) or not all(isinstance(name, str) for name in pairs.values()):
        return None
    return tuple(pairs[index] for index in wanted)


def names_in_text(text: str) -> tuple[str, ...] | None:
    """Return class names from a text in a model's metadata, None if it is no list or {index: name}.

    The text may be JSON or a Python literal.
    """
    if len(text) > FILE_BYTES:
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(value, Mapping):
            return names_by_index(value)
        return tuple(value) if isinstance(value, list | tuple) and value and all(isinstance(n, str) for n in value) \
            else None
    return None


def class_labels(values: Any) -> tuple[Label, ...]:
    """Return a classifier's `classes_` as whole numbers, or as texts; whole floats and booleans are numbers.

    Raises InputError if they are neither, or if one occurs twice.

    >>> class_labels([0.0, 1.0]), class_labels([False, True]), class_labels(["cat", "dog"])
    ((0, 1), (0, 1), ('cat', 'dog'))
    """
    listed = values.tolist() if hasattr(values, "tolist") else values
    labels = tuple(map(_label, listed)) if isinstance(listed, list | tuple) else ()
    kinds = {type(label) for label in labels}
    if len(kinds) != 1 or kinds == {type(None)} or len(set(labels)) < len(labels):
        raise InputError(f"the classifier's classes_ must be different whole numbers, or different names, of the "
                         f"classes, got {values!r:.200}")
    return labels  # type: ignore[return-value]


def class_columns(values: Any, num_classes: int) -> np.ndarray | None:
    """Return the class (an index below K) of each column of a classifier's scores, or None if class j is column j.

    Numbers, also as texts, are indices. Names carry no index, so they are taken in their order.

    Raises:
        InputError: a number that is not a class, or another number of names than classes.

    >>> class_columns([3, 7], 10), class_columns(["0", "1", "10", "2"], 11), class_columns(["cat", "dog"], 2)
    (array([3, 7]), array([ 0,  1, 10,  2]), None)
    """
    labels = class_labels(values)
    indices = [int(label) if _is_index(label) else -1 for label in labels]
    if all(0 <= index < num_classes for index in indices):
        columns = np.array(indices, dtype=np.int64)
        return None if np.array_equal(columns, np.arange(num_classes)) else columns
    if all(isinstance(label, str) for label in labels) and len(labels) == num_classes:
        return None
    raise InputError(f"the classifier's classes_ must be whole numbers in [0, {num_classes}), or the names of "
                     f"{num_classes} classes, so that they name the classes, got {values!r:.200}")


def own_classes(values: Any, num_classes: int) -> tuple[tuple[Label, ...], tuple[str, ...] | None]:
    """Return (a label for each output of a model, the names of its classes) by its own `classes_`.

    Whole numbers below `num_classes` are indices, which are no names: then the names are None. Other numbers are names,
    as texts are. Names that are 0, 1, ... in any order are those of the classes 0, 1, ...
    """
    labels = class_labels(values)
    if all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        return labels, None
    texts = tuple(map(str, labels))
    plain = index_names(len(texts))
    return texts, plain if set(texts) == set(plain) else texts


def _parse_names(content: bytes, where: str) -> Any:
    """Return the names in a file, a list that is still to be checked."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{where} is not UTF-8 text: {error}") from None
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.rstrip().splitlines()]
    value = from_json(text, where)
    if not isinstance(value, dict):
        return value
    names = names_by_index(value)
    if names is None:
        raise InputError(f"{where} must give the name of every index from 0 on, as {{\"0\": \"cat\", \"1\": \"dog\"}}")
    return names


def _check_names(given: Any, where: str) -> tuple[str, ...]:
    names = tuple(str(name) if _is_index(name) else name for name in given) if isinstance(given, list | tuple) else ()
    within(f"the number of classes in {where}", len(names), CLASSES, "it is not a list of class names", InputError)
    bad = [k for k, name in enumerate(names) if not isinstance(name, str) or not name.strip()]
    if not names or bad:
        got = f"name {bad[0] + 1} of {len(names)} is {names[bad[0]]!r:.80}" if bad else f"got {given!r:.80}"
        raise InputError(f"{where} must hold class names, one for each output of the model: {got}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where} names {twice[0]!r:.80} more than once: each class needs a name of its own")
    return names


def _label(value: Any) -> Label | None:
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _is_index(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and _INDEX.fullmatch(value) is not None)
