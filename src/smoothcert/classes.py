"""Names of classes: lists of them, as files, models and their metadata give them, and the matching of two lists.

An index must mean the same to a model and to a data set, so their lists are compared by name. A name of the data is one
of the model's if it is spelt the same, or if exactly one of the model's differs from it in case, spaces, underscores
and Unicode form only, which gives a `ClassWarning`. Names that are only their own index ("0", "1", ...) and WordNet's
numbers ("n01440764") cannot be compared with words: then the order is taken as it is, if both sides have equally many,
which gives a warning too.
"""

import ast
import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.errors import FileError, InputError
from smoothcert.limits import CLASSES, bounded_bytes, from_json, within

FILE_BYTES = 1 << 26
"""The most bytes of a file of class names, or of a text in a model that lists them."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

Label = int | str

GIVE_NAMES = ("give --classes FILE (in Python, classes), the names of all the model's classes as the data spell them, "
              "in the order of its outputs")

USE_ITS_CLASSES = f"use data of its classes, or {GIVE_NAMES}"

_SHOWN = 10
_LONGEST = 60
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?")
_WORDNET = re.compile(r"n[0-9]{8}")


def index_names(count: int) -> tuple[str, ...]:
    """Return the names "0", "1", ... for classes that have none of their own.

    >>> index_names(3)
    ('0', '1', '2')
    """
    return tuple(map(str, range(count)))


def read_class_names(given: Any) -> tuple[str, ...]:
    """Return class names from a list, or from a file: one a line, or JSON: a list, {index: name}, {name: index}, or the
    configuration of a model of Hugging Face, with `id2label` or `label2id`.

    Raises FileError for a file that cannot be read, InputError for content other than names.
    """
    if isinstance(given, str | os.PathLike):
        path = Path(given).expanduser()
        return _check_names(_parse_names(bounded_bytes(path, FILE_BYTES), str(path)), str(path))
    return _check_names(given, "classes")


def names_by_index(mapping: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """Return the names of {index: name} or {name: index} in the order of indices, None unless these are 0 to K - 1.

    Of a list of names of one class the first is taken: in Keras's `imagenet_class_index.json` those are WordNet's
    numbers, which folders of images have, and the words behind them are not all different.

    >>> names_by_index({"1": "dog", "0": "cat"}), names_by_index({"dog": 1, "cat": 0}), names_by_index({"3": "cat"})
    (('cat', 'dog'), ('cat', 'dog'), None)
    >>> names_by_index({"0": ["n01440764", "tench"]})
    ('n01440764',)
    """
    mapping = {key: value[0] if isinstance(value, list) and value else value for key, value in mapping.items()}
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
    listed = next((value[key] for key in ("id2label", "label2id") if isinstance(value.get(key), dict)), value)
    names = names_by_index(listed)
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


class ClassWarning(UserWarning):
    """The order of classes rests on an assumption that a person should know of."""


def in_order_of_numbers(names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names in the order of the numbers that they are, or that follow a common beginning.

    Return None if one of them is no number, or if two are the same number.

    >>> in_order_of_numbers(["0", "180", "270", "90"]), in_order_of_numbers(["c_1", "c_10", "c_2"])
    (('0', '90', '180', '270'), ('c_1', 'c_2', 'c_10'))
    >>> in_order_of_numbers(["1", "one"]), in_order_of_numbers(["1", "01"]), in_order_of_numbers(["c_1", "2"])
    (None, None, None)
    """
    head = names[0].rstrip("0123456789.")
    head = "" if head in ("+", "-") else head
    if not all(name.startswith(head) and _NUMBER.fullmatch(name[len(head):]) for name in names):
        return None
    numbers = {Fraction(name[len(head):]): name for name in names}
    return tuple(numbers[number] for number in sorted(numbers)) if len(numbers) == len(names) else None


def match_classes(model: Sequence[str], data: Sequence[str], whose: str = "the model", other: str = "the data",
                  advice: str = USE_ITS_CLASSES) -> np.ndarray:
    """Return (len(data),) int64: the index among the model's classes of each class of the data.

    Args:
        whose, other: the owners of the names in `model` and in `data`, for messages.
        advice: the way out, if they do not match.
    Raises:
        InputError: the data have a class that the model lacks, or one that could be several of the model's.

    >>> match_classes(["Dog", "cat", "horse"], ["cat", "Dog"])
    array([1, 0])
    """
    model, data = tuple(model), tuple(data)
    found = places_of(model, data)
    if found is None and _incomparable(model, data):
        _warn(f"{whose} and {other} name their classes in ways that cannot be compared ({_list_names(model, 3)} and "
              f"{_list_names(data, 3)}): their order is taken to be the same")
        return np.arange(len(data))
    if found is None:
        raise InputError(f"{_difference(model, data, whose, other)}\n{advice[0].upper()}{advice[1:]}")
    unlike = [(name, model[place]) for name, place in zip(data, found, strict=True) if name != model[place]]
    if unlike:
        spelt = ", ".join(f"{_quote(name)} is taken for {_quote(own)}" for name, own in unlike[:_SHOWN])
        more = f", and {len(unlike) - _SHOWN} more" if len(unlike) > _SHOWN else ""
        _warn(f"classes of {other} are spelt otherwise than those of {whose}: {spelt}{more}")
    return np.array(found, dtype=np.int64)


def places_of(model: tuple[str, ...], data: tuple[str, ...]) -> list[int] | None:
    """Return the place of each of the data's names among the model's, None unless each has a place of its own."""
    if model == data:
        return list(range(len(data)))
    exact, alike = _places(model), _places(map(_plain, model))
    places = [exact.get(name) or alike.get(_plain(name), []) for name in data]
    found = [place[0] for place in places if len(place) == 1]
    return found if len(found) == len(data) == len(set(found)) else None


def are_alike(one: Sequence[str], two: Sequence[str]) -> bool:
    """Tell if two lists name the same classes in the same order, as far as they can be compared."""
    one, two = tuple(one), tuple(two)
    return places_of(one, two) == list(range(len(one))) or _incomparable(one, two)


def names_to_record(model: Sequence[str], data: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a model's classes after matching: its own, or the data's if its own are indices."""
    return tuple(data if _kind(model) == "indices" and _incomparable(tuple(model), tuple(data)) else model)


def choose_names(own: Sequence[str] | None, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names of a model's classes: those that the user gave, else its own.

    Raises InputError if the user gave the model's own names in another order: one of the two must be wrong.
    """
    if given is None:
        return None if own is None else tuple(own)
    if own is not None and len(own) == len(given) and _kind(own) == "words":
        places = places_of(tuple(own), tuple(given))
        if places is not None and places != sorted(places):
            raise InputError(f"the model's own classes are {_list_names(own)}; classes lists them in another order: "
                             f"{_list_names(given)}: leave classes out, or correct it")
    return tuple(given)


def check_class_count(count: int, data: Sequence[str], named: bool, whose: str) -> None:
    """Raise InputError unless data that are to be taken in their own order have `count` classes.

    Args:
        named: the data name their classes; otherwise the length of `data` is just the number of labels.
        whose: the source of `count`, with a verb, such as "the model gives 5 scores an image".
    """
    if count == len(data):
        return
    if not named:
        advice = (f"give --num-classes {count} if the data lack classes that the model has" if len(data) < count
                  else "these are the labels of other classes")
        raise InputError(f"{whose}, but the labels of the data go up to {len(data) - 1}: {advice}")
    numbers = in_order_of_numbers(data) is not None and set(data) <= set(index_names(count))
    raise InputError(f"{whose}, but the data name {len(data)} ({_list_names(data)}): {GIVE_NAMES}"
                     + ("; or --numeric-classes, if these numbers are the classes' indices" if numbers else ""))


def warn_of_text_order(data: str, names: Sequence[str]) -> None:
    """Warn if names are numbers, and their order as text is not that of the numbers."""
    ordered = in_order_of_numbers(names)
    if ordered is not None and ordered != tuple(names):
        _warn(f"the classes of {data} are numbered and taken in the order {_list_names(names)}; --numeric-classes "
              f"(in Python, numeric_classes=True) takes them in the order {_list_names(ordered)}")


def _incomparable(one: tuple[str, ...], two: tuple[str, ...]) -> bool:
    """Tell if equally many classes are named in two ways that share no names."""
    return len(one) == len(two) and _kind(one) != _kind(two) and places_of(one, two) is None


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places


def _plain(name: str) -> str:
    """Return a name without differences in case, spaces, underscores and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().replace("_", " ").split())


def _kind(names: Sequence[str]) -> str:
    if tuple(names) == index_names(len(names)):
        return "indices"
    return "WordNet" if all(_WORDNET.fullmatch(name) for name in names) else "words"


def _difference(model: tuple[str, ...], data: tuple[str, ...], whose: str, other: str) -> str:
    exact, alike = _places(model), _places(map(_plain, model))
    places = {name: exact.get(name) or alike.get(_plain(name), []) for name in data}
    missing = [name for name in data if not places[name]]
    several = [name for name in data if len(places[name]) > 1]
    taken = {place for found in places.values() for place in found}
    unused = [name for place, name in enumerate(model) if place not in taken]
    if missing:
        why = f"only {other} have {_list_names(missing, 3)}"
    elif several:
        why = f"{_list_names(several, 3)} could be several classes of {whose}"
    else:
        why = f"several classes of {other} would be one of {whose}"
    return "\n".join([
        f"the classes of {other} are not those of {whose}: {why}",
        f"  - {whose}, {len(model)}: {_list_names(_first(unused, model))}",
        f"  - {other}, {len(data)}: {_list_names(_first([*missing, *several], data))}"])


def _first(these: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return all names, some of them first."""
    return [*these, *(name for name in names if name not in set(these))]


def _list_names(names: Sequence[str], most: int = _SHOWN) -> str:
    more = f", ... ({len(names) - most} more)" if len(names) > most else ""
    return ", ".join(map(_quote, names[:most])) + more


def _quote(name: str) -> str:
    """Return a name in a form that is safe to print, whoever wrote it."""
    text = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    is_plain = text.isprintable() and text == text.strip() and text and "," not in text
    return text if is_plain else repr(text) if text.isprintable() else ascii(text)


def _warn(text: str) -> None:
    warnings.warn(text, ClassWarning, stacklevel=4)
