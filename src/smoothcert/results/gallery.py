"""Images of a run sorted by radius, as they were and as the base classifier saw them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.results.base import check_records
from smoothcert.results.panels import noisy_copy
from smoothcert.stats import ABSTAIN
from smoothcert.store.recertify import noise_of
from smoothcert.store.store import Store

_JPEG = b"\xff\xd8\xff"


class Images(Protocol):
    """What is needed of a data set; `smoothcert.data.ImageData` has it."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def source(self) -> Any: ...

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray: ...


ImagesOf = Callable[[Store], Images]
"""The data set of a store; raises where it cannot be had."""


@dataclass(frozen=True)
class Gallery:
    """G images in falling order of radius, the abstained last.

    Attributes:
        clean, noisy: (G, C, H, W) float32; noisy copies are not clipped.
        index, label, prediction, radius: (G,); -1 for an abstention.
        class_names: (K,) names, by class.
        drawn: whether each noisy copy is the first of those that bounded its radius, or one of the same law.
        lossy: whether any of these images is stored in a lossy format (JPEG).
        of: how many images the run has.
    """

    clean: np.ndarray
    noisy: np.ndarray
    index: np.ndarray
    label: np.ndarray
    prediction: np.ndarray
    radius: np.ndarray
    class_names: tuple[str, ...]
    drawn: bool
    lossy: bool
    of: int

    def words(self, k: int) -> str:
        """What is written under image k.

        An arrow leads from the label to another answer; an answer that is the label stands alone.
        """
        label, given = self.class_name(self.label[k]), self.class_name(self.prediction[k])
        answer = label if self.label[k] == self.prediction[k] else f"{label} → {given}"
        return answer if self.prediction[k] == ABSTAIN else f"{answer}, R {cut(self.radius[k])}"

    def class_name(self, number: int) -> str:
        if number == ABSTAIN:
            return "abstained"
        return self.class_names[number] if number < len(self.class_names) else str(number)


def gallery_of(store: Store, images_of: ImagesOf, count: int) -> Gallery:
    """At most `count` images of a certify store, evenly spaced in the order of their radius.

    Raises:
        InputError: a store of another kind. What `images_of` raises.
    """
    check_count("count", count)
    if store.kind != "certify":
        raise InputError(f"{store.folder} is a store of kind {store.kind}: a gallery is sorted by radius, and needs a "
                         f"certify store")
    check_records(store)
    if "seed" not in store.identity:
        raise InputError(f"{store.folder} does not say of which data set and noise it is: a gallery needs a store")
    images = images_of(store)
    radius, prediction, index = (store.column(name) for name in ("radius", "prediction", "index"))
    order = np.lexsort((index, -radius, prediction == ABSTAIN))
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(np.int64))]
    clean = images.batch(index[chosen])
    noise, format = noise_of(store), store.identity["noise"]["format"]
    drawn = store.identity["space"] == "pixels" and format in noise.formats
    shown = [noisy_copy(image, noise, int(store.identity["seed"]), int(key), "estimate", format if drawn else None)
             for image, key in zip(clean, index[chosen], strict=True)]
    return Gallery(clean, np.stack(shown), index[chosen], store.column("label")[chosen], prediction[chosen],
                   radius[chosen], tuple(images.class_names), drawn, is_lossy(images, index[chosen]), len(order))


def is_lossy(images: Images, indices: np.ndarray) -> bool:
    """Whether any of these images is stored as JPEG."""
    return any(images.source.read_raw(int(i)).startswith(_JPEG) for i in indices)


def cut(radius: float) -> str:
    """A radius to three decimals, rounded down."""
    return f"{np.floor(radius * 1000) / 1000:.3f}"
