"""The settings that a distributional run goes through for each image, and what an ascent at one is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

from smoothcert.distributional.concavity import Standing, inside_standing, outside_standing
from smoothcert.store.identity import DistributionalIdentity


@dataclass(frozen=True)
class AscentSetting:
    """One record of each image: an ascent at `gamma`, or, where that is None, the loss where nothing is moved.

    `form` "outside" is of the smoothed classifier, "inside" of the base classifier without noise, and "equivalent" the
    short ascent that says which eps a gamma stands for.
    """

    form: str
    gamma: float | None


def list_settings(gammas: Sequence[float], equivalents: Sequence[float] = ()) -> tuple[AscentSetting, ...]:
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
