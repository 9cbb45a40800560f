"""The kinds of picture, and the options of each.

To add a kind, write a file with its two functions, `gather` (a `Request` -> what `draw` takes) and `draw` (that -> a
figure), and a row in `KINDS`; options of its own are a class here. Nothing here imports NumPy or matplotlib, so that
`--help` stays quick: a row names its functions by module and name.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field, field_validator

from smoothcert.config.base import Config
from smoothcert.config.fields import Count, NoiseKind, Probabilities, Probability, SampleSizes, Sigma, Sigmas, Whole
from smoothcert.parts import Registry
from smoothcert.report.options import (
    AnyStoredDenoiser,
    RecordsConfig,
    StoredDenoiser,
    StoredImages,
    StoredModel,
    Stores,
)


class PlotConfig(Config):
    """Options that all kinds share: the stores to draw, at least `least` of them and at most `most`."""

    least: ClassVar[int] = 1
    most: ClassVar[int | None] = None

    stores: Stores = Field(description="stores or count files", json_schema_extra={"argument": "STORE"})
    noise: NoiseKind | None = Field(None, description="noise of the runs, where it is your own code: file.py:NAME or "
                                                      "package.module:NAME")

    @field_validator("stores")
    @classmethod
    def _enough(cls, stores: tuple[str, ...]) -> tuple[str, ...]:
        if len(stores) < cls.least or (cls.most is not None and len(stores) > cls.most):
            wanted = str(cls.most) if cls.most == cls.least else f"at least {cls.least}"
            raise ValueError(f"this kind of picture takes {wanted} store{'s' * (wanted != '1')}, got {len(stores)}")
        return stores


class RecordsPlot(PlotConfig, RecordsConfig):
    """Options of kinds that also show logs."""

    stores: Stores = Field(description="stores, logs or count files", json_schema_extra={"argument": "STORE"})


class CurvesPlot(RecordsPlot):
    """Options of certified curves."""

    stores: Stores = Field(description="stores, logs, count files or attack stores; METHOD=STORE says which runs are "
                                       "one method", json_schema_extra={"argument": "STORE"})
    rho: Probability = Field(0.05, description="failure probability of each data-set interval")


class SeveralCurvesPlot(CurvesPlot):
    """Options of curves that need one another."""

    least = 2


class PairPlot(RecordsPlot):
    """Options of two runs over the same images."""

    least, most = 2, 2
    stores: Stores = Field(description="two stores, logs or count files over the same images",
                           json_schema_extra={"argument": "STORE"})


class StorePlot(PlotConfig):
    """Options of kinds that show one run."""

    most = 1
    stores: Stores = Field(description="a store or a count file", json_schema_extra={"argument": "STORE"})


class BoundsPlot(StorePlot):
    """Options of curves of one run."""

    rho: Probability = Field(0.05, description="failure probability of each data-set interval")


class ProjectionPlot(BoundsPlot):
    """Options of one run at another n or alpha."""

    n: SampleSizes | None = Field(None, description="numbers of samples (default: n/10, 10 n, 100 n)")
    alpha: Probabilities | None = Field(None, description="alphas, instead of n")

    def _contradictions(self) -> Iterator[str]:
        if self.n and self.alpha:
            yield "a projection is over n or over alpha: give one of them"


class GalleryPlot(StorePlot):
    """Options of images sorted by radius."""

    count: Count = Field(36, description="at most this many images")


class ImagePlot(StorePlot):
    """Options of kinds that show one image."""

    image: Whole | None = Field(None, description="index of the image (default: that of the median radius)")


class PanelsPlot(ImagePlot):
    """Options of one image under noise."""

    sigma: Sigmas | None = Field(None, description="noise levels (default: 0.12, 0.25, 0.5, 1 and that of the run)")


class ResolutionPlot(ImagePlot):
    """Options of one image at several sizes."""

    sigma: Sigma | None = Field(None, description="noise level (default: that of the run)")


class DenoisedPlot(ImagePlot):
    """Options of denoised images."""

    image: Whole | None = Field(None, description="show noisy copies of the image with this index (default: one copy "
                                                  "of each of several images)")
    count: Count = Field(8, description="at most this many images, or copies")


class FailuresPlot(PairPlot):
    """Options of images that the second of two runs certifies less."""

    count: Count = Field(12, description="at most this many images")


class ContractionPlot(StorePlot):
    """Options of what a denoiser does to noise."""

    count: Count = Field(100, description="at most this many images")
    n: Count = Field(64, description="noisy copies an image, an even number")


@dataclass(frozen=True)
class Kind:
    """A kind of picture.

    Attributes:
        words: what it shows, in a line.
        gather, draw: "module.function" in this package; gather: `Request` -> what draw takes; draw: that -> figure.
        options: the class of its options.
        take: what is taken of each store; see `TAKES` in `drawing`.
        share: "module.function" that cuts what was taken to the images that all have, where the kind shows only those.
        needs: the classes of options that say where its images, base classifier and denoiser are.
    """

    words: str
    gather: str | Callable[..., Any]
    draw: str | Callable[..., Any]
    options: type[PlotConfig] = PlotConfig
    take: str = "store"
    share: str = ""
    needs: tuple[type[Config], ...] = ()



def _check_kind(part: Any) -> list[str]:
    return [] if isinstance(part, Kind) or callable(part) else [
        "it must be a function of the runs that returns a matplotlib figure, or a smoothcert.report.plots.kinds.Kind"]


def find_kind(part: Any) -> Kind:
    """Return a kind of picture by its name, by the place of its code, or from a function (runs) -> figure.

    Raises UnknownNameError, CodeError or InputError, as `Registry.find` does.
    """
    found: Any = KINDS.find(part)
    if isinstance(found, Kind):
        return found
    words = (inspect.getdoc(found) or "your own picture").partition("\n")[0].rstrip(".")
    return Kind(words, gather=lambda request: request.opened, draw=found, options=RecordsPlot, take="result")


KINDS: Registry[Kind] = Registry("kind of picture", "smoothcert.plots", {
    "curve": Kind("certified accuracy against radius, with lower bounds, and the upper bounds that attacks prove",
                  "lines.gather_curves", "lines.draw_curves", CurvesPlot, "certified or attack"),
    "envelope": Kind("the best of several runs of each method at each radius, an oracle, or of attack stores at each "
                     "eps",
                     "lines.gather_envelopes", "lines.draw_envelopes", SeveralCurvesPlot, "certified or attack"),
    "empirical": Kind("certified accuracy, and accuracy under the attacks of attack stores",
                      "lines.gather_empirical", "lines.draw_empirical", SeveralCurvesPlot, "certified or attack",
                      share="lines.share_attacked"),
    "bounds": Kind("the radii of Cohen, Li and Lecuyer from the same counts",
                   "lines.gather_bounds", "lines.draw_curves", BoundsPlot),
    "theorems": Kind("radius against p_A under Cohen, Li and Lecuyer, and where the images stand",
                     "lines.gather_theorems", "lines.draw_theorems", StorePlot),
    "projection": Kind("the same run at another n (an estimate) or alpha",
                       "lines.gather_projection", "lines.draw_curves", ProjectionPlot),
    "abstention": Kind("shares of right, wrong and abstained answers",
                       "counts.gather_shares", "counts.draw_abstention", RecordsPlot, "result"),
    "votes": Kind("histograms of p_A, observed and bounded",
                  "counts.gather_top_shares", "counts.draw_top_shares", take="votes"),
    "wall": Kind("sorted radii under r_max, the most that n samples can prove",
                 "counts.gather_wall", "counts.draw_wall", RecordsPlot, "certified"),
    "scatter": Kind("radius of each image in two runs",
                    "counts.gather_pairs", "counts.draw_scatter", PairPlot, "certified",
                    share="counts.share_images"),
    "gallery": Kind("images sorted by radius, clean and noisy",
                    "images.gather_gallery", "images.draw_gallery", GalleryPlot, needs=(StoredImages,)),
    "panels": Kind("one image at several sigma",
                   "images.gather_panels", "images.draw_panels", PanelsPlot, needs=(StoredImages,)),
    "resolution": Kind("the same noise at several image sizes, after average pooling",
                       "images.gather_resolution", "images.draw_resolution", ResolutionPlot, needs=(StoredImages,)),
    "regions": Kind("classes on a plane through an image, and the votes of its noisy copies",
                    "images.gather_regions", "images.draw_regions", ImagePlot,
                    needs=(StoredModel, StoredImages)),
    "denoised": Kind("images as they are, noisy, and denoised",
                     "images.gather_denoised", "images.draw_denoised", DenoisedPlot,
                     needs=(StoredDenoiser, StoredImages)),
    "failures": Kind("images that the first of two runs certifies at a larger radius",
                     "images.gather_failures", "images.draw_failures", FailuresPlot,
                     needs=(AnyStoredDenoiser, StoredImages)),
    "contraction": Kind("how far a denoiser contracts noise, and how far it moves the image",
                        "images.gather_contraction", "images.draw_contraction", ContractionPlot,
                        needs=(StoredDenoiser, StoredImages)),
    "distributional": Kind("bounds on the expected loss against rho, and the worst case found",
                           "lines.gather_bounds_on_loss", "lines.draw_bounds_on_loss", take="robustness"),
    "labels": Kind("labels of multi-label runs that are right and certified against radius",
                   "labels.gather_labels", "labels.draw_labels", take="labels"),
    "widths": Kind("widths of a regression's certified intervals against radius",
                   "widths.gather_widths", "widths.draw_widths", take="intervals"),
}, _check_kind)
"""Kinds of picture by name."""
