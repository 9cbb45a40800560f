"""Options of `certify` and `predict`."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from smoothcert.config.base import Part
from smoothcert.config.fields import Count, Looks, Method, Options, Probability, Radii, Real, Samples, Stored
from smoothcert.config.sampling import ATTACKED, SamplingConfig

if TYPE_CHECKING:  # each method imports what it needs: NumPy and SciPy would slow --help down
    from smoothcert.noise import Noise
    from smoothcert.stats import Plan


class CertifyConfig(SamplingConfig):
    """Options of `smoothcert certify`."""

    n0: Count | None = Field(None, description="samples that choose the class (default: 100, or 1000 for curve-loss, "
                                               "where they are the pilot)")
    n: Samples | None = Field(None, description="samples that bound its probability, fixed (default: 100000 unless "
                                                "n-max is given)")
    n_max: Samples | None = Field(None, description="sequential: at most this many samples; needs radii or curve-loss")
    curve_loss: Probability | None = Field(
        None, description="sequential: size n for each image so that at most this share of the radius at n-max is "
                          "lost, such as 0.01")
    radii: Radii | None = Field(None, description="radii to print, in pixel units, such as 0.5,1,1.5 or 64/255; with "
                                                   "n-max: decide just these, and stop when all are decided")
    method: Method = Field("two-sided", description="procedure: two-sided, cohen or t-certify")
    margin: Annotated[Real, Field(ge=0, lt=0.5)] | None = Field(
        None, description="tau: give the radius within which the class keeps probability 1/2 + tau")

    def plan(self, noise: "Noise | None" = None) -> "Plan":
        """Return the plan that the options ask for; without a noise, to be looked at and not to be run.

        Raises InputError for options that name no design, or several, or values that the design does not take.
        """
        from smoothcert.stats import certify_plan

        radii = self.radii if self.n_max is not None else None  # else they only say what to print
        radius = {} if noise is None else {"radius_of": partial(noise.radius, margin=self.margin)}
        return certify_plan(**radius, n0=self.n0, n=self.n, radii=radii, curve_loss=self.curve_loss, n_max=self.n_max,
                            alpha=self.alpha, method=self.method, margin=self.margin)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        yield {"n0", "n", "n_max", "curve_loss", "radii", "method", "margin", "alpha"}, self.plan


class PredictConfig(SamplingConfig):
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

    def plan(self, noise: "Noise | None" = None) -> "Plan":
        """Return the plan that the options ask for; it is the same under every noise.

        Raises InputError for options that name no design, or several, or values that the design does not take.
        """
        from smoothcert.stats import predict_plan

        return predict_plan(self.alpha, self.n, self.n_max)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        yield {"n", "n_max", "alpha"}, self.plan

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.setting and self.adversaries is None:
            yield "setting says which attack of a store: give adversaries, that store"
        if unknown := sorted(set(self.setting) - set(ATTACKED)):
            yield f"setting takes {', '.join(ATTACKED)}; got {', '.join(unknown)}"
