"""Data sets from users' own code: objects that hold inputs and labels, and functions that give them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

from smoothcert.data.arrays import from_tensors
from smoothcert.data.base import ImageData
from smoothcert.data.reading import Reading
from smoothcert.errors import CodeError, InputError
from smoothcert.parts import known_arguments

_FORMS = ("ImageData, (inputs, labels), a map-style torch Dataset or a DataLoader of one, a Hugging Face Dataset, or a "
          "sequence of pairs (input, label)")


def load_own(
    part: Any, name: str, split: str, reading: Reading, num_classes: int | None, data_dir: Any = None
) -> ImageData:
    """Return the data set that a part is or gives.

    Args:
        part: `ImageData`; a pair (inputs, labels) of arrays or tensors; a map-style torch Dataset, or another sequence
            of items (input, label), which are read when they are used; a DataLoader of one, in the data set's own
            order; a Hugging Face Dataset, or a dict of them by split; or a function that returns one of these, called
            with those of `split`, `data_dir` and `num_classes` that its signature names.
        name: what stores and messages call it.
    Raises:
        CodeError: the function or an item fails. InputError: something else is given, or `ImageData` are to be
        preprocessed. DataError: values out of range, or items that are not the same at each reading.
    """
    value = part
    if callable(part) and not _is_sequence(part):
        known = known_arguments(part, split=split, data_dir=data_dir, num_classes=num_classes)
        try:
            value = part(**known)
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in known.items())
            raise CodeError(f"data {name} failed when called with ({given}): {type(error).__name__}: {error}"
                            ) from error
    if isinstance(value, ImageData):
        _check_ready(name, reading)
        return replace(value, name=name, split=split)
    return _read(value, name, split, reading, num_classes)


def given_data(value: Any, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return a data set that is given as an object in Python; `ImageData` as they are, with their own name and split.

    Raises what `load_own` raises.
    """
    if isinstance(value, ImageData):
        _check_ready(value.name, reading)
        return value
    return load_own(value, _name_of(value), split, reading, num_classes)


def _read(value: Any, name: str, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    from smoothcert.data.items import from_items

    if isinstance(value, Mapping) and split in value and all(isinstance(key, str) for key in value):
        value = value[split]
    if isinstance(value, tuple) and len(value) == 2:
        _refuse_columns(name, reading)
        return replace(from_tensors(*value, num_classes=num_classes, name=name, levels=reading.levels,
                                    preprocess=reading.preprocess, bounds=reading.bounds, real=reading.real),
                       split=split)
    if hasattr(value, "ndim") and hasattr(value, "dtype"):
        raise InputError(f"data {name} are an array without labels: give the pair (images, labels)")
    if isinstance(value, Mapping):
        raise InputError(f"data {name} are a mapping of {', '.join(map(str, value)) or 'nothing'}, which has no split "
                         f"{split!r}: give {_FORMS}")
    if hasattr(value, "with_format") and hasattr(value, "features"):
        if getattr(value, "format", {}).get("type") != "custom":  # a transform of its own makes the items
            return _from_hugging_face(value, name, split, reading, num_classes)
    elif _has_base(value, "DataLoader"):
        value = _data_set_of(value, name)
    if not _is_sequence(value):
        raise InputError(f"data {name} must be {_FORMS}; got {type(value).__name__}")
    _refuse_columns(name, reading)
    return from_items(value, name=name, split=split, num_classes=num_classes, reading=reading)


def _from_hugging_face(value: Any, name: str, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return a Hugging Face data set by its Arrow table, whose encoded images are decoded when they are used."""
    from smoothcert.data.tables import StoredRows, table_data

    table = value.with_format("arrow")[:]
    return table_data(StoredRows(table, (name,)), name, str(value.split or split), reading, num_classes)


def _data_set_of(loader: Any, name: str) -> Any:
    """Return the data set of a DataLoader. Raises InputError where the loader gives other images than it."""
    sampler = loader.sampler
    every = _has_base(sampler, "SequentialSampler") or (_has_base(sampler, "RandomSampler") and not sampler.replacement)
    if not every or len(sampler) != len(loader.dataset):
        raise InputError(f"data {name}: the DataLoader's {type(sampler).__name__} does not give each item once: give "
                         f"its data set, as torch.utils.data.Subset(dataset, indices) where some items are meant")
    if getattr(loader.collate_fn, "__module__", "").partition(".")[0] != "torch":
        raise InputError(f"data {name}: the DataLoader puts batches together by a function of its own, "
                         f"{getattr(loader.collate_fn, '__qualname__', loader.collate_fn)!s}: give a data set whose "
                         f"items are (image, label)")
    return loader.dataset


def _check_ready(name: str, reading: Reading) -> None:
    if reading != Reading():
        raise InputError(f"data {name} are ready inputs: resize and crop them, choose their features and give their "
                         f"bounds and levels where they are made, or return arrays")


def _refuse_columns(name: str, reading: Reading) -> None:
    reading.refuse(("resize", "crop", "bounds", "levels"), f"data {name}, which have no columns,")


def _name_of(value: Any) -> str:
    """Return what stores call data that are given as an object: a name of their own, else that of their class; wrappers
    such as `Subset` have the name of what they wrap, and tensors are "tensors" in whatever they come."""
    if isinstance(value, Mapping) and value:
        value = next(iter(value.values()))
    while (base := getattr(value, "dataset", None)) is not None:
        value = base
    kind = type(value)
    if kind in (tuple, list) or kind.__module__.startswith("torch."):
        return "tensors"
    own = getattr(getattr(value, "info", None), "dataset_name", None)
    return own or getattr(value, "__name__", None) or kind.__name__


def _has_base(value: Any, name: str) -> bool:
    """Tell whether an object is of a torch class, which is not imported for it."""
    return any(kind.__name__ == name and kind.__module__.startswith("torch.") for kind in type(value).__mro__)


def _is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, str | type | Mapping)
