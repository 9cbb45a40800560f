"""Images of another data set with labels of their own, as `smoothcert label-best` writes them for a router.

The classes stay those of the images' data set, so that a network trained on these labels can be certified on it.
"""

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smoothcert.data.base import ImageData, PixelSource, check_indices
from smoothcert.data.load import DATA, is_own_code, open_data
from smoothcert.data.reading import READING, Reading
from smoothcert.errors import FileError, InputError
from smoothcert.io.files import list_problems, read_json

_Whole = Annotated[int, Field(ge=0)]


class LabelFile(BaseModel):
    """Labels of some images of a data set, which is named as for `certify`."""

    model_config = ConfigDict(frozen=True, strict=True)

    version: Annotated[int, Field(ge=1, le=1)]
    data: str
    split: str
    resize: int | None = None
    crop: int | None = None
    features: list[str] | None = None
    label: str | None = None
    bounds: list[float] | str | None = None
    levels: int | None = None
    numeric_classes: bool = False
    classifiers: list[str]
    indices: list[_Whole]
    labels: list[_Whole]


class ChosenImages:
    """A PixelSource of some images of another one."""

    def __init__(self, source: PixelSource, chosen: np.ndarray) -> None:
        self._source, self._chosen = source, chosen
        self.shape, self.levels, self.bounds = source.shape, source.levels, source.bounds
        self.preprocessing = source.preprocessing
        self.where: Callable[[int], str] = lambda row: source.where(int(chosen[row]))

    def __len__(self) -> int:
        return len(self._chosen)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """Return (B, *shape)."""
        return self._source.pixels(self._chosen[indices])

    def read_raw(self, index: int) -> bytes:
        """Return the image as the other source stores it."""
        return self._source.read_raw(int(self._chosen[index]))


def load_relabelled(
    path: Path, split: str, reading: Reading, data_dir: str | PathLike[str] | None = None
) -> ImageData:
    """Return the images that a file of labels names, with those labels.

    Raises:
        FileError: no such file, or another one. InputError: it has labels of another split, or of images that came
            from code which was not named in this process.
    """
    try:
        told = LabelFile.model_validate(read_json(path))
    except ValidationError as error:
        raise FileError(list_problems(f"{path} is no file of labels as `smoothcert label-best` writes it", error)
                        ) from None
    if split != told.split:
        raise InputError(f"labels:{path} has labels of the split {told.split} alone, and {split} was asked for: a "
                         f"router is certified on the images' own data, --data {told.data}")
    asked = {name: getattr(reading, name) or getattr(told, name) for name in READING}
    data = open_data(_name_images(path, told.data), split, data_dir=data_dir, numeric_classes=told.numeric_classes,
                     **asked)
    chosen = check_indices(told.indices, len(data))
    return ImageData(f"labels:{path.name}", split, np.array(told.labels, dtype=np.int64), data.class_names,
                     ChosenImages(data.source, chosen), f"{len(chosen)} images of {data.name}", data.named)


def _name_images(path: Path, data: str) -> Any:
    """Return the data that a file of labels is about: what it names is read, and code that it names is not run."""
    if data.partition(":")[0] == "labels":
        raise FileError(f"{path} is about {data}, and these are labels themselves: it must name the images' own data")
    if not is_own_code(data):
        return data
    if (given := DATA.given(data)) is None:
        raise InputError(f"{path} has labels of images that come from code, {data}, and a file of labels runs none: "
                         f"in Python, open these images with smoothcert.load_data first")
    return given
