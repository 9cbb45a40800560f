"""How the inputs of a data set are read: which columns or arrays they are, in what bounds and on what grid."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from smoothcert.checks import check_bounds, check_count, split_commas
from smoothcert.data.base import Bounds
from smoothcert.data.preprocess import Preprocess
from smoothcert.errors import InputError

READING = ("resize", "crop", "features", "label", "bounds", "levels")
"""The options that say how inputs are read."""
ANY = "none"
"""The bounds of values of which nothing is known."""


@dataclass(frozen=True)
class Reading:
    """How inputs are read. None leaves each of these to the data.

    Attributes:
        resize, crop: of images; see `Preprocess`.
        features: the columns of a table, or the arrays of a file, that inputs are made of, in this order.
        label: the column, or the array, of the labels.
        bounds: (low, high) that all values keep, or "none". None is (0, 1) for images, and "none" for other inputs.
        levels: L such that L * x is a whole number for every clean value x.
        real: whether the labels are real values, the targets of a regression.
    Raises:
        InputError: bad values, or options of images beside those of tensors.
    """

    resize: int | None = None
    crop: int | None = None
    features: Sequence[str] | None = None
    label: str | None = None
    bounds: Any = None
    levels: int | None = None
    real: bool = field(default=False, compare=False)
    preprocess: Preprocess = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "preprocess", Preprocess(self.resize, self.crop))
        if self.levels is not None:
            check_count("levels", self.levels)
        if isinstance(self.features, str):
            object.__setattr__(self, "features", tuple(split_commas(self.features)))
        if self.features is not None and (not self.features or len(set(self.features)) < len(self.features)):
            raise InputError(f"features must be the names of one or more columns, each once, got "
                             f"{', '.join(self.features) or 'none'}")
        if self.label is not None and self.label in (self.features or ()):
            raise InputError(f"{self.label} is among the features and is the label, too: an input may not hold its "
                             f"answer")
        if self.bounds not in (None, ANY):
            object.__setattr__(self, "bounds", check_bounds(self.bounds))

    @property
    def tensor_bounds(self) -> Bounds:
        """The bounds of inputs that are no images."""
        return None if self.bounds in (None, ANY) else self.bounds

    @property
    def may_be_images(self) -> bool:
        """False where the bounds are not those of images."""
        return self.bounds in (None, (0, 1))

    def refuse(self, taken: Sequence[str], what: str) -> None:
        """Raise InputError for options that are given but not among those that are `taken` by `what`."""
        given = [name for name in READING if getattr(self, name) is not None]
        if unfit := [name for name in given if name not in taken]:
            raise InputError(f"{' and '.join(unfit)}: of no use with {what}, whose options are {', '.join(taken)}: "
                             f"leave {'it' if len(unfit) == 1 else 'them'} out")

    def refuse_preprocessing(self, shape: Sequence[int]) -> None:
        """Raise InputError if inputs of this shape, which are no images, are to be resized or cropped."""
        if self.preprocess != Preprocess():
            raise InputError(f"resize and crop are for images, and the inputs are tensors of shape {tuple(shape)}: "
                             f"leave them out")
