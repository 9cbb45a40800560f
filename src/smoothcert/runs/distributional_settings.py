"""What a distributional run does for each image, and how its store says so; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from smoothcert.distributional.concavity import Standing, inside_standing, outside_standing


@dataclass(frozen=True)
class Setting:
    """One record of each image: an ascent at `gamma`, or, where that is None, the loss where nothing is moved.

    `form` "outside" is of the smoothed classifier, "inside" of the base classifier without noise, and "equivalent" the
    short ascent that says which eps a gamma stands for.
    """

    form: str
    gamma: float | None


def settings_of(gammas: Sequence[float], equivalents: Sequence[float] = ()) -> tuple[Setting, ...]:
    """The unmoved image first; the form inside has settings only where there are ascents; at last the gammas whose eps
    is asked for."""
    inside = (Setting("inside", None), *(Setting("inside", gamma) for gamma in gammas)) if gammas else ()
    return (Setting("outside", None), *(Setting("outside", gamma) for gamma in gammas), *inside,
            *(Setting("equivalent", gamma) for gamma in equivalents))


def standing_of(setting: Setting, told: dict[str, Any], sigma: float) -> Standing:
    """What an ascent is worth in a bound.

    Args:
        told: "ceiling" (None where the loss has none), and "gamma", the prices of the bounds; others are attacks alone.
    """
    if setting.gamma is None or setting.gamma not in told["gamma"]:
        return Standing("estimate", "this price was for the worst case alone")
    if setting.form == "inside":
        return inside_standing(setting.gamma, told["ceiling"], None)
    return outside_standing(setting.gamma, sigma, told["ceiling"])
