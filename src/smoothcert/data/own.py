"""Data sets from users' own code: a function or an object that gives images and labels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from smoothcert.data.arrays import from_tensors
from smoothcert.data.base import ImageData
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import CodeError, InputError
from smoothcert.parts import known_arguments


def load_own(
    part: Any, name: str, split: str, preprocess: Preprocess, num_classes: int | None, data_dir: Any = None
) -> ImageData:
    """Return the data set that a part is or gives.

    Args:
        part: `ImageData`; a pair (images, labels) of arrays or tensors; a sequence of pairs (image, label), such as a
            map-style torch Dataset; or a function that returns one of these, called with those of `split`,
            `data_dir` and `num_classes` that its signature names.
        name: what stores and messages call it.
    Raises:
        CodeError: the function fails. InputError: something else is given, or `ImageData` are to be preprocessed.
        DataError: values out of range.
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
        if preprocess != Preprocess():
            raise InputError(f"data {name} are ready images: resize and crop them where they are made, or return "
                             f"arrays")
        return replace(value, name=name, split=split)
    if isinstance(value, tuple) and len(value) == 2:
        images, labels = value
    elif _is_sequence(value):
        if not len(value):
            raise InputError(f"data {name} hold no images")
        pairs = [value[i] for i in range(len(value))]
        if not all(isinstance(pair, Sequence) and len(pair) >= 2 for pair in pairs[:1]):
            raise InputError(f"data {name} must hold pairs (image, label), got {type(pairs[0]).__name__}")
        images, labels = np.stack([np.asarray(pair[0]) for pair in pairs]), [_plain(pair[1]) for pair in pairs]
    else:
        raise InputError(f"data {name} must be ImageData, (images, labels), or a sequence of pairs (image, label); got "
                         f"{type(value).__name__}")
    data = from_tensors(images, labels, num_classes=num_classes, name=name, preprocess=preprocess)
    return replace(data, split=split)


def _is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, str | type)


def _plain(label: Any) -> Any:
    return label.item() if hasattr(label, "item") else label
