"""Options of `attack`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from smoothcert.config.base import Part
from smoothcert.config.fields import Counts, Options, Sizes, Stored, Whole, Wholes
from smoothcert.config.sampling import SamplingConfig
from smoothcert.errors import InputError

if TYPE_CHECKING:  # each method imports what it needs: torch and SciPy would slow --help down
    from smoothcert.attacks import AttackMethod
    from smoothcert.noise import Noise
    from smoothcert.stats import Plan

TIMES = (1.0, 1.5, 2.0)
"""Multiples of an image's certified radius, where none are given."""


class AttackConfig(SamplingConfig):
    """Options of `smoothcert attack`: every image is attacked at every eps (or multiple), m and number of steps."""

    eps: Sizes | None = Field(
        None, description="bounds on the perturbation's norm, in pixel units, such as 0.25,0.5,1 or 8/255")
    m: Wholes = Field(
        "8", validate_default=True, description="noisy copies that the attack sees, such as 1,8,128; 0 attacks the "
                                                "base classifier at the image itself")
    steps: Counts = Field(
        "20", validate_default=True, description="steps T of the attack; several are several attacks")
    n: Counts = Field(
        "1000", validate_default=True, description="samples that predict the attacked image; several, such as "
                                                   "100,1000, are looks at one sample, each judged at alpha by itself")
    answer: Literal["votes", "softmax"] = Field(
        "votes", description="how the attacked image is answered: votes (PREDICT) or softmax, the largest mean "
                             "probability of n noisy copies, which is no test and never abstains")
    attack: str = Field("pgd", description="pgd, ddn, stein (asks the model only for answers) or deepfool "
                                             "(of the base classifier: m 0)")
    attack_option: Options = Field(default_factory=dict, description="option of the attack, KEY=VALUE (repeatable), "
                                                                     "such as surrogate=wrong or norm=linf")
    target: Whole | None = Field(None, description="class that the attack wants (default: any but the right one); "
                                                   "images of that class are left out")
    eps_from: Stored | None = Field(None, description="store of `smoothcert certify`: attack each of its certified "
                                                    "images at multiples of its own radius, and its certified class")
    times: Sizes | None = Field(
        None, description="with eps-from: the multiples of the radius (default: 1,1.5,2)")
    only_right: bool = Field(False, description="with eps-from: only images whose certified class is their label")
    certified: Stored | None = Field(None, description="store of `smoothcert certify` over the same images: print its "
                                                     "curve beside the empirical accuracy; max-images chooses among "
                                                     "its images")
    save_adversaries: bool = Field(False, description="keep the attacked images, as float32")

    @property
    def sizes(self) -> tuple[float, ...]:
        """The sizes that the attack takes in turn: eps, or multiples of the certified radius."""
        return self.eps if self.eps is not None else self.times or TIMES

    def build_attack(self, eps: float, steps: int) -> "AttackMethod":
        """Return the attack that the options name, at one size and number of steps."""
        from smoothcert.attacks import build_attack

        if given := [name for name in ("eps", "steps") if name in self.attack_option]:
            raise InputError(f"attack-option {' and '.join(given)}: give --{' and --'.join(given)}")
        return build_attack(self.attack, eps=eps, steps=steps, **self.attack_option)

    def plan(self, noise: "Noise | None" = None) -> "Plan":
        """Return the plan by which attacked images are predicted; it is the same under every noise."""
        from smoothcert.stats import predict_plan

        return predict_plan(self.alpha, self.n)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        yield {"attack", "attack_option"}, lambda: self.build_attack(1.0, 1)
        yield {"n", "alpha"}, self.plan

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if (self.eps is None) == (self.eps_from is None):
            yield "give either eps, bounds for all images, or eps-from, the store whose radii are the bounds"
        if self.times is not None and self.eps_from is None:
            yield "times are multiples of a certified radius: give eps-from, the store that holds the radii"
        if self.only_right and self.eps_from is None:
            yield "only-right chooses among certified images: give eps-from, the store that holds them"
        if self.eps_from is not None and self.certified is not None:
            yield "with eps-from the bounds differ from image to image: leave certified out"
        if self.eps_from is not None and self.target is not None:
            yield "eps-from attacks each image's certified class: leave target out"
        if self.eps_from is not None and self.attack_option.get("norm", "l2") != "l2":
            yield "certified radii are l2 radii: eps-from takes an attack in norm l2"
        if self.answer == "softmax" and (self.certified is not None or self.eps_from is not None):
            yield "answers by softmax have no level to hold against certificates: leave certified and eps-from out"
        if self.answer == "softmax" and len(self.n) > 1:
            yield "answers by softmax take one n: several are looks at one test, and there is none"
        if self.answer == "softmax" and (self.engine not in ("auto", "plain") or self.precision != "float32"):
            yield "answers by softmax follow the network as it is, in float32: leave engine and precision out"
        if 0 in self.m and self.attack == "stein":
            yield "m = 0 follows the base classifier's gradient, and stein has none but that of noisy copies"
        if self.attack == "deepfool" and (self.m != (0,) or self.target is not None):
            yield "deepfool attacks the base classifier at the image itself, away from its class: give m 0, no target"
