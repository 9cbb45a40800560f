"""Options of `transfer`: a network, and the original whose certificates it gets."""

from collections.abc import Iterator

from pydantic import Field

from smoothcert.config.base import Part
from smoothcert.config.fields import (
    DataPart,
    Method,
    ModelPart,
    NoiseKind,
    Options,
    Probability,
    Radii,
    Samples,
    Seed,
    Sigma,
    StorePart,
)
from smoothcert.config.sampling import RunConfig, SamplingConfig

ORIGINAL_OPTIONS = ("weights", "network", "model_option", "mean", "std", "trust", "denoiser", "walk_jump", "attractor",
                    "front_option")
"""What `original-option` takes: the options of `certify` that say more of a model than its name."""


class TransferConfig(SamplingConfig):
    """Options of `smoothcert transfer`: what they leave out is as in the store."""

    store: StorePart = Field(description="finished store of `smoothcert certify`, of the original network",
                             json_schema_extra={"argument": "STORE"})
    original: ModelPart | None = Field(None, description="the store's network, in the forms of MODEL (default: MODEL "
                                                         "itself, in the store's precision)")
    original_option: Options = Field(default_factory=dict, description="option of the original, KEY=VALUE "
                                                                       "(repeatable): weights, network, mean, "
                                                                       "denoiser and others of certify")
    n: Samples = Field(10_000, description="noisy copies an image that both networks judge")
    share: Probability = Field(0.5, description="part of alpha that the flips between them may spend; the store's "
                                                "looks have the rest")
    alpha: Probability | None = Field(  # type: ignore[assignment]
        None, description="failure probability of each certificate (default: the store's)")
    method: Method | None = Field(None, description="two-sided or cohen (default: the store's, or two-sided)")
    radii: Radii | None = Field(None, description="radii to print, in the data's units, such as 0.5,1,1.5 or 64/255")
    data: DataPart = Field(None, description="data set of the store, in the forms of certify (default: where the run "
                                             "found it)")
    split: str | None = Field(  # type: ignore[assignment]
        None, description="split of the data set (default: the store's)")
    sigma: Sigma | None = Field(None, description="noise level, which must be the store's (default: that)")
    noise: NoiseKind | None = Field(None, description="noise of the store, where it is your own code: file.py:CLASS, "
                                                      "package.module:CLASS")
    seed: Seed | None = Field(None, description="run seed in [0, 2^128) of the copies (default: the store's, whose own "
                                                "samples are others)")

    def original_model(self) -> RunConfig:
        """Return the options that name the original network. Raises ConfigError where they are wrong."""
        given = {name: getattr(self, name) for name in ORIGINAL_OPTIONS} if self.original is None else {}
        model = self.model if self.original is None else self.original
        return RunConfig.parse({**given, **self.original_option, "model": model, "out": self.out}, "original-option")

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        if not set(self.original_option) - set(ORIGINAL_OPTIONS):
            yield {"original", "original_option", "model", "out"}, self.original_model

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if unknown := sorted(set(self.original_option) - set(ORIGINAL_OPTIONS)):
            yield f"original-option takes {', '.join(ORIGINAL_OPTIONS)}; got {', '.join(unknown)}"
        if self.method == "t-certify":
            yield ("t-certify splits alpha after seeing the counts, which leaves no part of it to the flips: give "
                   "method two-sided or cohen")
