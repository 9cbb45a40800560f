"""Options of `certify` and `predict`."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

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

    def plan(self, noise: "Noise") -> "Plan":
        """Return the plan that the options ask for under a noise."""
        from smoothcert.stats import certify_plan

        radii = self.radii if self.n_max is not None else None  # else they only say what to print
        return certify_plan(partial(noise.radius, margin=self.margin), n0=self.n0, n=self.n, radii=radii,
                            curve_loss=self.curve_loss, n_max=self.n_max, alpha=self.alpha, method=self.method,
                            margin=self.margin)

    @model_validator(mode="after")
    def _one_design(self) -> Self:
        if self.n is not None and self.n_max is not None:
            raise ValueError("n fixes the number of samples and n-max bounds a sequential run: give one of them")
        if self.n_max is None and self.curve_loss is not None:
            raise ValueError("curve-loss sizes n for each image up to n-max: give n-max, such as 100000, and no n")
        if self.n_max is not None and (self.radii is None) == (self.curve_loss is None):
            raise ValueError("n-max needs either radii (decide these) or curve-loss (a full curve): give one of them")
        return self


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

    def plan(self, noise: "Noise") -> "Plan":
        """Return the plan that the options ask for; it is the same under every noise."""
        from smoothcert.stats import predict_plan

        return predict_plan(self.alpha, self.n, self.n_max)

    @model_validator(mode="after")
    def _one_design(self) -> Self:
        if self.n is not None and self.n_max is not None:
            raise ValueError("n fixes the number of samples and n-max bounds a sequential run: give one of them")
        if self.setting and self.adversaries is None:
            raise ValueError("setting says which attack of a store: give adversaries, that store")
        if unknown := sorted(set(self.setting) - set(ATTACKED)):
            raise ValueError(f"setting takes {', '.join(ATTACKED)}; got {', '.join(unknown)}")
        return self
