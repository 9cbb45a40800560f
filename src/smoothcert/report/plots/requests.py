"""What a picture is asked of, and what a kind of picture is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from smoothcert.results.base import check_records
from smoothcert.results.estimates import Estimates
from smoothcert.results.gallery import ImagesOf
from smoothcert.results.regions import Answers
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Request:
    """What a picture is asked of.

    Attributes:
        stores: stores, logs or count files (also METHOD=PATH), in the order of their colours.
        rho: failure probability of each lower bound.
        options: what was given beside; each kind names those that it takes.
        radius_column: the column of logs that holds the radii; see `read_log`.
        images_of, answers_of, estimates_of: the data set of a store, its base classifier, and a denoiser at its sigma;
            for kinds that need them.
        opened: what the kind takes of each store, filled in when they have been opened.
    """

    stores: tuple[str, ...]
    rho: float = 0.05
    options: dict[str, Any] = field(default_factory=dict)
    radius_column: str | None = None
    images_of: ImagesOf | None = None
    answers_of: Callable[[Store], Answers] | None = None
    estimates_of: Callable[[Store], Estimates] | None = None
    opened: tuple[Any, ...] = ()

    @property
    def only(self) -> tuple[Store, str]:
        """The store of a kind that takes one whole, and its name."""
        return self.opened[0]


def _whole(store: Store, name: str) -> tuple[Store, str]:
    check_records(store)
    return store, name


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        gather: request -> what `draw` takes.
        draw: that -> figure.
        words: what it shows, in a line.
        options: names of the options it takes beside the common ones.
        most: how many stores it takes at most, and `least` at least.
        of: (store, name) -> what `gather` takes of a store, or an error where the store does not have it.
        together: what is taken of all stores, cut to what they have in common.
    """

    gather: Callable[[Request], Any]
    draw: Callable[[Any], Figure]
    words: str
    options: tuple[str, ...] = ()
    least: int = 1
    most: int | None = None
    of: Callable[[Store, str], Any] = _whole
    together: Callable[[tuple[Any, ...]], tuple[Any, ...]] = tuple
