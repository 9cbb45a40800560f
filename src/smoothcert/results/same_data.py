"""Whether runs are over one data set, so that they can be held against each other image by image."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from smoothcert.classes import places_of
from smoothcert.errors import InputError


class OverImages(Protocol):
    """A run over single images: what can be held against others.

    `index` (M,) are its images, each once; `label` (M,) their classes, where known; `classes` the names of the classes,
    where known; `setting` says under "data" which data set they are of.
    """

    @property
    def name(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def index(self) -> np.ndarray: ...
    @property
    def label(self) -> np.ndarray | None: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def setting(self) -> dict[str, Any]: ...


def check_same_data(runs: Sequence[OverImages]) -> None:
    """Raise InputError where runs are over different data sets: by what they say (name, split and
    shape), or by the labels of shared images, which are compared by name where models order their classes otherwise."""
    told = [(run.name, run.setting["data"]) for run in runs if run.setting.get("data")]
    for name, data in told[1:]:
        if any(data.get(field) != told[0][1].get(field) for field in ("name", "split", "shape")):
            raise InputError(f"{name} is over {_words(data)} and {told[0][0]} over {_words(told[0][1])}: image by "
                             f"image, only runs over one data set can be compared")
    first = runs[0]
    for other in runs[1:]:
        if first.label is None or other.label is None:
            continue
        shared, one, two = np.intersect1d(first.index, other.index, assume_unique=True, return_indices=True)
        bad = np.flatnonzero(first.label[one] != _translated(other, first)[two])
        if len(bad):
            where = bad[0]
            raise InputError(
                f"{first.name} and {other.name} are over different data sets: image {shared[where]} has label "
                f"{first.label[one[where]]} in the one and {other.label[two[where]]} in the other"
                + (f", and {len(bad) - 1} more differ" if len(bad) > 1 else ""))


def _translated(run: OverImages, to: OverImages) -> np.ndarray:
    """The labels of a run as indices of another one's classes; as they are where these lack one, or have no names."""
    label = np.asarray(run.label)
    names: tuple[str, ...] = () if run.classes is None else run.classes
    used, inverse = np.unique(label, return_inverse=True)
    if not to.classes or names == to.classes or used.min(initial=0) < 0 or used.max(initial=0) >= len(names):
        return label
    places = places_of(to.classes, tuple(str(names[k]) for k in used.tolist()))
    return label if places is None else np.array(places)[inverse]


def _words(data: dict) -> str:
    return f"{data.get('name')} ({data.get('split')})"
