"""The settings that attack and distributional runs go through for each image, with the certificates that can bound an
attack, and what an ascent is worth in a bound."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from smoothcert.distributional.concavity import Standing, inside_standing, outside_standing
from smoothcert.errors import StoreError
from smoothcert.store.identity_parts import DistributionalIdentity
from smoothcert.store.recertify import check_certified
from smoothcert.store.store import Store


@dataclass(frozen=True)
class AttackSetting:
    """One attack on every image.

    Attributes:
        size: eps, or the multiple of the image's certified radius.
        m: noisy copies that the attack sees; 0 is the image itself, under the base classifier.
        steps: T.
    """

    size: float
    m: int
    steps: int


CLEAN = AttackSetting(0.0, 0, 0)
"""No attack: the first record of each image, to tell accuracy at radius 0 and which answers change."""


def list_attacks(sizes: Sequence[float], m: Sequence[int], steps: Sequence[int]) -> tuple[AttackSetting, ...]:
    """Return CLEAN, then every (size, m, T)."""
    return (CLEAN, *(AttackSetting(*combination) for combination in product(sizes, m, steps)))


@dataclass(frozen=True, eq=False)
class CertifiedImages:
    """The certified images of a store, by rising index: `index`, `prediction` int64 (M,), `radius` (M,) > 0."""

    index: np.ndarray
    prediction: np.ndarray
    radius: np.ndarray

    def classes(self, index: np.ndarray) -> np.ndarray:
        """Return the certified class of each image."""
        return self.prediction[np.searchsorted(self.index, index)]

    def radii(self, index: np.ndarray) -> np.ndarray:
        """Return the certified radius of each image."""
        return self.radius[np.searchsorted(self.index, index)]

    def digest(self, index: np.ndarray) -> str:
        """Return the SHA-256 of these images' classes and radii."""
        parts = (index, self.classes(index), self.radii(index))
        return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def read_certified(store: Store, only_right: bool = False) -> CertifiedImages:
    """Return the images of a certify store that have a certificate, of any class, or only of their label's.

    Raises:
        StoreError: a store of another kind, or radii that are not l2.
    """
    check_certified(store, "eps-from")
    if store.identity.norm not in (None, "l2"):
        raise StoreError(f"{store.folder} has {store.identity.norm} radii; eps-from takes a store of l2 radii")
    index, prediction, radius = (store.column(name) for name in ("index", "prediction", "radius"))
    order = np.argsort(index)
    order = order[(radius > 0)[order] & (store.correct[order] | (not only_right))]
    return CertifiedImages(index[order], prediction[order], radius[order])


@dataclass(frozen=True)
class AscentSetting:
    """One record of each image: an ascent at `gamma`, or, where that is None, the loss where nothing is moved.

    `form` "outside" is of the smoothed classifier, "inside" of the base classifier without noise, and "equivalent" the
    short ascent that says which eps a gamma stands for.
    """

    form: str
    gamma: float | None


def list_ascents(gammas: Sequence[float], equivalents: Sequence[float] = ()) -> tuple[AscentSetting, ...]:
    """Return the settings in order: the unmoved image first, then the ascents outside and inside, then the gammas whose
    eps is asked for. The form inside has settings only where there are ascents."""
    inside = (AscentSetting("inside", None), *(AscentSetting("inside", gamma) for gamma in gammas)) if gammas else ()
    return (AscentSetting("outside", None), *(AscentSetting("outside", gamma) for gamma in gammas), *inside,
            *(AscentSetting("equivalent", gamma) for gamma in equivalents))


def find_standing(setting: AscentSetting, told: DistributionalIdentity, sigma: float) -> Standing:
    """Return what an ascent is worth in a bound; one at a price that is not among `told.gamma` is an attack alone."""
    if setting.gamma is None or setting.gamma not in told.gamma:
        return Standing("estimate", "this price was for the worst case alone")
    if setting.form == "inside":
        return inside_standing(setting.gamma, told.ceiling, None)
    return outside_standing(setting.gamma, sigma, told.ceiling)
