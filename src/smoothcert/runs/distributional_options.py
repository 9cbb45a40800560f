"""Options of `distributional`."""

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from smoothcert.checks import construct
from smoothcert.config.base import MachineConfig, Part
from smoothcert.config.fields import Costs, Options, Probability, Samples, Sigma, Sizes, Stored
from smoothcert.config.sampling import RunConfig
from smoothcert.io.paths import place

if TYPE_CHECKING:  # the method imports it: torch would slow --help down
    from smoothcert.distributional.search import Search

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
        if self.model.endswith((".npz", ".tsv")):
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
