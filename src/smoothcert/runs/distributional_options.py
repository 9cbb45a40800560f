"""Options of `distributional`."""

from collections.abc import Iterator
from importlib import import_module
from typing import Literal, Self

from pydantic import Field, model_validator

from smoothcert.checks import built
from smoothcert.config.base import MachineConfig
from smoothcert.config.fields import Costs, Options, Probability, Samples, Sigma, Sizes, Stored
from smoothcert.config.sampling import RunConfig
from smoothcert.errors import ConfigError, InputError
from smoothcert.io.paths import place

SEARCH = ("steps", "draws", "tolerance", "check")
"""Options of the search, fields of `smoothcert.distributional.Search`."""

_OF_A_STORE = {"model", "rho", "alpha", "out", "data_dir", "workers", "cluster", *MachineConfig.model_fields}


class DistributionalConfig(RunConfig):
    """Options of `smoothcert distributional`: bounds on the worst expected loss of laws near that of the images."""

    model: str = Field(description="a model, as for certify; or a store: of certify, for the certificate of the 0-1 "
                                   "loss from its counts, or of an earlier distributional run, to read it again",
                       json_schema_extra={"argument": "MODEL"})
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
        return (place(self.model) / "manifest.json").is_file()

    @property
    def gammas(self) -> tuple[float, ...]:
        """All prices, ascending."""
        return tuple(sorted({*(self.gamma or ()), *(self.gamma_adv or ())}))

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        kinds = (self._of_store_problems,) if self.of_store else (self._of_model_problems, self._search_problems)
        if problems := [problem for kind in kinds for problem in kind()]:
            raise ValueError("; ".join(problems))
        return self

    def _of_store_problems(self) -> Iterator[str]:
        if foreign := sorted(self.model_fields_set - _OF_A_STORE):
            yield (f"{self.model} is a store, of which only rho and alpha can be asked: leave "
                   f"{', '.join(name.replace('_', '-') for name in foreign)} out, or give the model")

    def _of_model_problems(self) -> Iterator[str]:
        if self.model.endswith((".npz", ".tsv")):
            yield (f"{self.model} is no store and no model, but a count file or a log: take the store that it came "
                   f"from, or, in Python, smoothcert.distributional.certificate_from_counts")
        elif self.out is None:
            yield (f"give out, the store directory: {self.model} is no store, so it is taken as a model, and a run "
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

    def _search_problems(self) -> Iterator[str]:
        """Yield what the search itself says of its options. It is imported only here, since it needs torch."""
        if self.eps_equivalent and not self.gamma:
            yield "eps-equivalent says which eps a gamma stands for: give gamma"
        if not self.search_option:
            return
        if not self.gammas:
            yield "search-option is for the search at gamma or gamma-adv: give one of them"
        search = import_module("smoothcert.distributional.inner").Search
        try:
            built("search-option", search, SEARCH, self.search_option)
        except ConfigError as error:
            yield from error.problems
        except InputError as error:
            yield str(error)
