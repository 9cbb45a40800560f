"""Labelled inputs in `.npz` and `.npy` files: one array of inputs and one of labels, for each split or for all."""

import re
from pathlib import Path

import numpy as np

from smoothcert.checks import suggestion
from smoothcert.data.arrays import ArraySource, TensorSource, channels_first, class_indices, is_image_shape
from smoothcert.data.base import ImageData, PixelSource, resolve_classes
from smoothcert.data.reading import Reading
from smoothcert.data.splits import find_split, known_splits, split_names
from smoothcert.data.targets import real_data
from smoothcert.errors import DataError, InputError
from smoothcert.io.arrays import read_array, read_arrays
from smoothcert.limits import path_inside

INPUTS = ("x", "X", "inputs", "images", "data", "features", "embeddings", "arr_0")
"""Names under which the inputs are looked for, also with the split before or behind: x_test, test_x."""
LABELS = ("y", "Y", "labels", "label", "targets", "target", "arr_1")
CLASS_NAMES = ("class_names", "classes", "target_names")


def load_npz(path: Path, split: str, reading: Reading, num_classes: int | None) -> ImageData:
    """Return the inputs of a file of arrays, or of the file of `split` in a folder; or of a `.npy` file of inputs with
    one of labels beside it, as CIFAR-10-C has them.

    Inputs and labels are the arrays that `reading` names, else those of `split` (x_test and y_test, test_images and
    test_labels, ...), else x and y. Images are whole numbers of 8 bits in the shape of images, and, with a channel axis
    of 1 or 3, any whole numbers in 0..levels (255) or floats in [0, 1]. All other numbers are taken as they are.

    Raises FileError for a file that is missing or corrupt, InputError for a split that it lacks, DataError for content
    that cannot be used.
    """
    found = find_split(path, split, ".npz")
    if len(found.files) > 1:
        raise DataError(f"{path} has {len(found.files)} files of the split {split!r} ({found.files[0].name}, ...), and "
                        f"arrays are read from one: put them together, or give one of them")
    file = found.files[0]
    if file.suffix == ".npy":
        inputs, labels = file.name, _find_labels(file, reading)
        arrays = {name: read_array(file.parent / name) for name in (inputs, labels)}
    else:
        arrays = read_arrays(file)
        inputs, labels = _choose(arrays, file, split, reading)

    def where(index: int) -> str:
        return f"row {index} of {inputs} in {file}"

    values, given = arrays[inputs], arrays[labels]
    if values.ndim < 2 or given.ndim == 0 or len(values) != len(given):
        raise DataError(f"{file}: {inputs} has shape {values.shape} and {labels} has shape {given.shape}; they must be "
                        f"inputs (N, ...) and N labels")
    source = _source(values, where, reading)
    if reading.real:
        return real_data(f"npz:{path.resolve().name}", split, given, source, f"{inputs} and {labels}")
    given = np.char.decode(given, "utf-8") if given.dtype.kind == "S" else given
    indices, names = class_indices(given, where)
    listed = next((arrays[name] for name in CLASS_NAMES if name in arrays and arrays[name].dtype.kind == "U"), None)
    if names is None and listed is not None and listed.ndim == 1:
        names = tuple(listed.tolist())
    return ImageData(f"npz:{path.resolve().name}", split, indices, resolve_classes(indices, names, num_classes, where),
                     source, f"{len(indices)} inputs, {inputs} and {labels}; preprocessing: {source.preprocessing}",
                     named=names is not None, divided=found.divided or inputs not in (*INPUTS, file.name))


def _choose(arrays: dict[str, np.ndarray], file: Path, split: str, reading: Reading) -> tuple[str, str]:
    """Return the names of the arrays of inputs and labels, or raise InputError, DataError naming those that are there.
    """
    listed = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "none"
    if reading.features and len(reading.features) > 1:
        raise InputError(f"features: inputs are one array of {file}, got {', '.join(reading.features)}")
    found: dict[str, str | None] = {"features": reading.features[0] if reading.features else None,
                                    "label": reading.label}
    if absent := [name for name in found.values() if name is not None and name not in arrays]:
        named = ", ".join(f"{name}{suggestion(name, arrays)}" for name in absent)
        raise DataError(f"{file} has no array {named}; its arrays: {listed}")
    for key, known in (("features", INPUTS), ("label", LABELS)):
        found[key] = found[key] or _find(arrays, known, split)
    if found["features"] is None or found["label"] is None:
        splits = [name for name in known_splits() if _find(arrays, INPUTS, name) and _find(arrays, LABELS, name)]
        if splits:
            raise InputError(f"{file} has no split {split!r}; the splits found: {', '.join(splits)}")
        missing = " and ".join(word for word, key in (("inputs", "features"), ("labels", "label")) if not found[key])
        raise DataError(f"{file} has no array of {missing} under a usual name (x and y): name them, --features NAME "
                        f"--label NAME; its arrays: {listed}")
    return found["features"], found["label"]


def _find_labels(file: Path, reading: Reading) -> str:
    """Return the name of the file of labels that belongs to a `.npy` file of inputs. Raises InputError, DataError."""
    if reading.features:
        raise InputError(f"features: {file} is one array, and has no parts to choose from")
    if reading.label is not None:
        path_inside(file.parent, reading.label)
        return reading.label
    named = [re.sub(rf"(?<![A-Za-z]){word}(?![A-Za-z])", label, file.name) for word in INPUTS for label in LABELS]
    there = [name for name in (*named, "labels.npy") if name != file.name and (file.parent / name).is_file()]
    if not there:
        raise DataError(f"{file} has no labels beside it, such as labels.npy in its folder: name their file, --label "
                        f"FILE")
    return there[0]


def _find(arrays: dict[str, np.ndarray], known: tuple[str, ...], split: str) -> str | None:
    """Return the array of a split under one of the known names, else the one of all inputs, None if neither is there.
    """
    for part in split_names(split):
        for name in known:
            for key in (f"{name}_{part}", f"{part}_{name}"):
                if key in arrays:
                    return key
    return next((name for name in known if name in arrays), None)


def _source(values: np.ndarray, where, reading: Reading) -> PixelSource:
    if reading.may_be_images and _are_images(values, min(reading.levels or 255, 255)):
        return ArraySource(channels_first(values, where(0)), where, levels=reading.levels or 255,
                           preprocess=reading.preprocess)
    return TensorSource(values, where, reading)


def _are_images(values: np.ndarray, levels: int) -> bool:
    if values.dtype == np.uint8:
        return is_image_shape(values.shape[1:])
    if values.ndim != 4 or not values.size or values.dtype.kind not in "iuf" or not is_image_shape(values.shape[1:]):
        return False
    return bool(values.min() >= 0 and values.max() <= (1 if values.dtype.kind == "f" else levels))
