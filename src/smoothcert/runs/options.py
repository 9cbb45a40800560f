"""Options of `certify`, `predict`, `attack` and `distributional`; those of `transfer` are in `transfer_options`."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from smoothcert.checks import construct
from smoothcert.config.base import LogConfig, MachineConfig, Part
from smoothcert.config.fields import (
    AttackPart,
    Costs,
    Counts,
    Looks,
    Method,
    ModelPart,
    Options,
    Probability,
    Radii,
    Radius,
    Real,
    Samples,
    Sigma,
    Sizes,
    Stored,
    Whole,
    Wholes,
)
from smoothcert.config.sampling import ATTACKED, RunConfig, SamplingConfig
from smoothcert.errors import ConfigError, InputError
from smoothcert.io.paths import place

if TYPE_CHECKING:  # each method imports what it needs: torch and SciPy would slow --help down
    from smoothcert.attacks import AttackMethod
    from smoothcert.distributional.search import Search
    from smoothcert.noise import Noise
    from smoothcert.stats import MultiLabelPlan, PercentilePlan, Plan


OUTPUT_SAMPLES = 10_000
"""Samples an input of a regression and of a multi-label run, where none are given."""

OF_CLASSES = {"n_max", "curve_loss", "curve_to", "method", "margin", "labels_known", "claim", "num_classes", "classes",
              "numeric_classes"}
"""The options of `smoothcert certify` that only the task of classification takes."""

_FOREIGN = {"classification": {"percentile", "threshold"}, "regression": {*OF_CLASSES, "n0", "threshold"},
            "multi-label": {*OF_CLASSES, "percentile"}}
"""The options that a task does not take."""


class CertifyConfig(SamplingConfig, LogConfig):
    """Options of `smoothcert certify`."""

    n0: Whole | None = Field(None, description="samples that choose the class (default: 100, or 1000 for curve-loss, "
                                               "where they are the pilot, or 0, to follow the leading class, for "
                                               "radii with method cohen where that is proved)")
    n: Samples | None = Field(None, description="samples that bound its probability, fixed (default: 100000 unless "
                                                "n-max is given; 10000 for other tasks than classification)")
    n_max: Samples | None = Field(None, description="sequential: at most this many samples; needs radii or curve-loss")
    curve_loss: Probability | None = Field(
        None, description="sequential: size n for each image so that at most this share of the mean radius at n-max "
                          "is lost, such as 0.01")
    curve_to: Radius | None = Field(
        None, description="with curve-loss: ask for the curve up to this radius alone; beyond it, the "
                          "curve is a lower bound")
    radii: Radii | None = Field(None, description="radii to print, in the data's units, such as 0.5,1 or 64/255; with "
                                                   "n-max: decide just these, and stop when all are decided; "
                                                   "regression: those of the intervals")
    method: Method = Field("two-sided", description="procedure: two-sided, cohen or t-certify")
    labels_known: bool = Field(False, description="with radii and n-max: judge the label's own class and no other, "
                                                  "which is all that certified accuracy asks for")
    margin: Annotated[Real, Field(ge=0, lt=0.5)] | None = Field(
        None, description="tau: give the radius within which the class keeps probability 1/2 + tau")

    task: Literal["classification", "multi-label", "regression"] = Field(
        "classification", description="what the model's outputs are: classification (scores of classes: a class and "
                                      "its radius), multi-label (a score for each of several labels: whether it is "
                                      "present, and a radius) or regression (real values: an interval of their "
                                      "percentile within each of radii, by median smoothing)")
    percentile: Probability = Field(0.5, description="regression: the percentile of the noisy outputs that is bounded, "
                                                     "in (0, 1): 0.5 is the median")
    threshold: Annotated[Real, Field(allow_inf_nan=False)] = Field(
        0.0, description="multi-label: a label is present where its output exceeds this: 0 for logits, 0.5 for "
                         "probabilities")
    claim: Options = Field(default_factory=dict, description="the claim about new images that the run was planned for, "
                                                             "KEY=VALUE: radius, accuracy, rho, pilot, as `smoothcert "
                                                             "plan` writes them; it becomes part of the store's "
                                                             "identity")

    def plan(self, noise: "Noise | None" = None, version: int | None = None) -> "Plan":
        """Return the plan that the options ask for; without a noise, to be looked at and not to be run.

        `version` is that of its design, the last one for None.

        Raises InputError for options that name no design, or several, or values that the design does not take.
        """
        from smoothcert.stats import certify_plan

        radii = self.radii if self.n_max is not None else None  # else they only say what to print
        radius = {} if noise is None else {"radius_of": partial(noise.radius, margin=self.margin)}
        return certify_plan(**radius, n0=self.n0, n=self.n, radii=radii, curve_loss=self.curve_loss,
                            curve_to=self.curve_to, n_max=self.n_max, alpha=self.alpha, method=self.method,
                            margin=self.margin, labels_known=self.labels_known, version=version)

    def percentile_plan(self, sigma: float, outputs: int = 1) -> "PercentilePlan":
        """Return the plan of a regression. Raises InputError for radii that n cannot give."""
        from smoothcert.stats import PercentilePlan

        return PercentilePlan(sigma, self.radii or (), self.n or OUTPUT_SAMPLES, self.alpha, self.percentile,
                              outputs)

    def multi_label_plan(self, noise: "Noise | None" = None, labels: int = 1) -> "MultiLabelPlan":
        """Return the plan of a multi-label run; see `plan`."""
        from smoothcert.stats import MultiLabelPlan

        radius = {} if noise is None else {"radius_of": noise.radius}
        n0 = 100 if self.n0 is None else self.n0
        return MultiLabelPlan(labels, n0, self.n or OUTPUT_SAMPLES, self.alpha, **radius)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        if self.task == "regression":
            if self.sigma is not None and self.radii is not None:
                yield {"n", "radii", "alpha", "percentile", "sigma"}, partial(self.percentile_plan, self.sigma)
        elif self.task == "multi-label":
            yield {"n0", "n", "alpha"}, self.multi_label_plan
        else:
            yield {"n0", "n", "n_max", "curve_loss", "curve_to", "radii", "method", "margin", "alpha",
                   "labels_known"}, self.plan
            if self.claim:
                yield {"claim", "radii"}, self._check_claim

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        fields = type(self).model_fields
        if foreign := sorted(name for name in _FOREIGN[self.task] if getattr(self, name) != fields[name].get_default(
                call_default_factory=True)):
            yield (f"the task {self.task} does not take {', '.join(name.replace('_', '-') for name in foreign)}: leave "
                   f"{'them' if len(foreign) > 1 else 'it'} out, or give another task")
        if self.task == "classification":
            return
        if foreign := sorted(name for name in ("batch_size", "engine", "precision", "space")
                             if getattr(self, name) not in (None, "auto", "plain", "pixels", "float32")):
            yield (f"the task {self.task} runs the network as it is, in float32 and passes of one size: leave out "
                   f"{', '.join(name.replace('_', '-') for name in foreign)}")
        if self.task == "regression" and self.radii is None:
            yield "a regression is certified at radii that are chosen before the run: give radii, such as 0,0.25,0.5"
        if self.log_to:
            yield f"log-to shows certified accuracy, which the task {self.task} does not have: leave it out"

    def _check_claim(self) -> None:
        """Raise InputError unless the claim is one that a plan could have written for this run."""
        from smoothcert.store.identity_parts import ClaimIdentity  # brings NumPy, which --help does without

        try:
            claim = ClaimIdentity.model_validate(self.claim)
        except ValidationError as error:
            raise ConfigError([f"claim.{e['loc'][0]}: {e['msg'].lower()}, got {e['input']!r:.80}"
                               for e in error.errors()], "the claim") from None
        if claim.model_extra:
            raise InputError(f"claim has {', '.join(ClaimIdentity.model_fields)}, as `smoothcert plan` writes them; "
                             f"got {', '.join(claim.model_extra)} too")
        if claim.radius not in (self.radii or ()):
            raise InputError(f"claim: radius {claim.radius:g} is none of radii: the run would not decide it")


class PredictConfig(SamplingConfig, LogConfig):
    """Options of `smoothcert predict`."""

    n: Looks | None = Field(
        None, description="samples an image, fixed (default: 1000 unless n-max is given); several, such as 100,1000, "
                          "are looks at one sample, each judged at alpha by itself")
    n_max: Samples | None = Field(None, description="sequential: stop as soon as the answer is sure, after at most "
                                                    "this many samples")
    adversaries: Stored | None = Field(None, description="store of `smoothcert attack --save-adversaries`: predict its "
                                                         "attacked images in place of the clean ones")
    setting: Options = Field(default_factory=dict, description="with adversaries: which of its attacks, KEY=VALUE "
                                                               "(repeatable): eps or times, m, steps")

    def plan(self, noise: "Noise | None" = None, version: int | None = None) -> "Plan":
        """Return the plan that the options ask for; it is the same under every noise.

        `version` is that of its design, the last one for None.

        Raises InputError for options that name no design, or several, or values that the design does not take.
        """
        from smoothcert.stats import predict_plan

        return predict_plan(self.alpha, self.n, self.n_max, version)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        yield {"n", "n_max", "alpha"}, self.plan

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.setting and self.adversaries is None:
            yield "setting says which attack of a store: give adversaries, that store"
        if unknown := sorted(set(self.setting) - set(ATTACKED)):
            yield f"setting takes {', '.join(ATTACKED)}; got {', '.join(unknown)}"


TIMES = (1.0, 1.5, 2.0)
"""Multiples of an image's certified radius, where none are given."""


class AttackConfig(SamplingConfig):
    """Options of `smoothcert attack`: every image is attacked at every eps (or multiple), m and number of steps."""

    eps: Sizes | None = Field(
        None, description="bounds on the perturbation's norm, in the data's units, such as 0.25,0.5,1 or 8/255")
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
    attack: AttackPart = Field("pgd", description="pgd, ddn, stein (asks the model only for answers), deepfool (of the "
                                                  "base classifier: m 0), or file.py:CLASS, package.module:CLASS")
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

    def build_attack(self, eps: float, steps: int, method: type | None = None) -> "AttackMethod":
        """Return the attack that the options name, at one size and number of steps.

        `method` is its class where that was found already: to find a user's own runs the file that it is in.
        """
        from smoothcert.attacks import build_attack

        if given := [name for name in ("eps", "steps") if name in self.attack_option]:
            raise InputError(f"attack-option {' and '.join(given)}: give --{' and --'.join(given)}")
        return build_attack(self.attack if method is None else method, eps=eps, steps=steps, **self.attack_option)

    def plan(self, noise: "Noise | None" = None, version: int | None = None) -> "Plan":
        """Return the plan by which attacked images are predicted; it is the same under every noise."""
        from smoothcert.stats import predict_plan

        return predict_plan(self.alpha, self.n, version=version)

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


SEARCH = ("steps", "draws", "tolerance", "check")
"""Options of the search, fields of `smoothcert.distributional.Search`."""

_OF_A_STORE = {"model", "rho", "alpha", "out", "data_dir", "workers", "cluster", *MachineConfig.model_fields}


class DistributionalConfig(RunConfig):
    """Options of `smoothcert distributional`: bounds on the worst expected loss of laws near that of the images."""

    model: ModelPart = Field(description="a model, as for certify; or a store: of certify, for the certificate of the "
                                         "0-1 loss from its counts, or of an earlier distributional run, to read it "
                                         "again", json_schema_extra={"argument": "MODEL"})
    rho: Costs = Field("0,0.01,0.0625,0.25", validate_default=True, description="transport costs to print: bounds on "
                                                                                "the mean squared l2 move")
    gamma: Sizes | None = Field(None, description="prices of squared distance at which the bounds inside and outside "
                                                  "are searched, such as 0.25,1.5,3 (default: only the certificate)")
    gamma_adv: Sizes | None = Field(None, description="more prices, for the worst case found alone")
    eps_equivalent: bool = Field(False, description="also say which eps each gamma stands for: the root mean square "
                                                    "move after 15 steps of NAL's ascent (best with split train)")
    loss: Literal["clipped", "cross-entropy"] = Field(
        "clipped", description="clipped (cross-entropy, at most clip) or cross-entropy (estimates only)")
    clip: Sigma | None = Field(None, description="M, the most that the clipped loss can be (default: ln K)")
    n: Samples = Field(1000, description="noisy copies an image for the certificate")
    alpha: Probability = Field(0.001, description="failure probability of the certificate")
    search_option: Options = Field(default_factory=dict, description="option of the search, KEY=VALUE (repeatable): "
                                                                     "steps, draws, tolerance, check")
    out: Stored | None = Field(  # type: ignore[assignment]
        None, description="store directory, required with a model; the same command resumes an interrupted run")

    @property
    def of_store(self) -> bool:
        """True where a store is given in place of a model."""
        return isinstance(self.model, str) and (place(self.model) / "manifest.json").is_file()

    @property
    def gammas(self) -> tuple[float, ...]:
        """All prices, ascending."""
        return tuple(sorted({*(self.gamma or ()), *(self.gamma_adv or ())}))

    def build_search(self) -> "Search":
        """Return the search that the options name."""
        from smoothcert.distributional.search import Search

        return construct("search-option", Search, SEARCH, self.search_option)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        if self.search_option and not self.of_store:
            yield {"search_option"}, self.build_search

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.of_store:
            if foreign := sorted(self.model_fields_set - _OF_A_STORE):
                yield (f"{self.model} is a store, of which only rho and alpha can be asked: leave "
                       f"{', '.join(name.replace('_', '-') for name in foreign)} out, or give the model")
            return
        if isinstance(self.model, str) and self.model.endswith((".npz", ".tsv")):
            yield (f"{self.model} is neither a store nor a model, but a count file or a log: take the store that it "
                   f"came from, or, in Python, smoothcert.distributional.certificate_from_counts")
        elif self.out is None:
            yield (f"give out, the store directory: {self.model} is not a store, so it is taken as a model, and a run "
                   f"over a model's images leaves a store")
        if self.loss == "cross-entropy":
            if given := [name for name in ("n", "alpha") if name in self.model_fields_set]:
                why = import_module("smoothcert.distributional.limits").CLIP_IT
                asked = " and ".join(given) + (" asks" if len(given) == 1 else " ask")
                yield f"{asked} for a certificate: {why} (here: give loss clipped)"
            if not self.gammas:
                yield "without gamma only the certificate is computed, and cross-entropy has none: give gamma"
            if self.clip is not None:
                yield "clip is the ceiling of the clipped loss: leave it out, or give loss clipped"
        if self.eps_equivalent and not self.gamma:
            yield "eps-equivalent says which eps a gamma stands for: give gamma"
        if self.search_option and not self.gammas:
            yield "search-option is for the search at gamma or gamma-adv: give one of them"
