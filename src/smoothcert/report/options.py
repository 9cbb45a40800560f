"""Options of the verbs that read stores: table, compare, info, export, recertify, cost and report.

The classes of images, models and denoisers say again what a store was made from, for pictures that show them.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from smoothcert.config.base import Config, Part, ReadingConfig
from smoothcert.config.fields import (
    Count,
    DenoiserPart,
    Local,
    Method,
    NoiseKind,
    Options,
    Probability,
    Radii,
    Real,
    Sigma,
    Stored,
    Weight,
    Whole,
)
from smoothcert.config.model import ModelConfig
from smoothcert.io.paths import Place, place

if TYPE_CHECKING:  # NumPy and SciPy would slow --help down
    from smoothcert.results.planning import ClaimRequest

Stores = Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""Stores to open; a configuration file may give a single one as a text."""


class RecordsConfig(Config):
    """Options of reading logs."""

    radius_column: str | None = Field(
        None, description="column of logs that holds the radii (default: radius), or several: the first that a log "
                          "has; none: logs of PREDICT", json_schema_extra={"metavar": "NAME"})


class LogsConfig(RecordsConfig):
    """Options of reading and judging logs."""

    alpha: Probability | None = Field(None, description="failure probability of each line of logs that do not say it")


class RadiiConfig(Config):
    """Options of the figures to show."""

    radii: Radii | None = Field(None, description="radii, in the data's units, such as 0.5,1 or 2/255 (default: evenly "
                                                  "spaced)")
    rho: Probability = Field(0.05, description="failure probability of each data-set interval")


class IntervalsConfig(Config):
    """Options of a table of certified accuracy for people."""

    intervals: Literal["one", "all"] = Field(
        "one", description="lower bounds of certified accuracy of classes to show: one (for new images) or all")


class PrintedConfig(RadiiConfig):
    """Options of printing a table."""

    format: Literal["text", "markdown", "csv", "latex"] | None = Field(
        None, description="text (default), markdown, csv or latex")


class NormConfig(PrintedConfig, LogsConfig):
    """Options that `table` and `compare` share."""

    norm: Literal["l2", "linf"] = Field("l2", description="l2, or linf: radii of the l_inf ball inside the l2 ball")
    dimension: Count | None = Field(None, description="number of values of an image, where a log does not say it; for "
                                                      "--norm linf (3072: 3 x 32 x 32)")
    out: Local | None = Field(None, description="write there instead of printing",
                              json_schema_extra={"metavar": "FILE"})


class TableConfig(NormConfig, IntervalsConfig):
    """Options of `smoothcert table`."""

    stores: Stores = Field(
        description="stores, logs (TSV) or count files (NPZ); METHOD=STORE says which runs are one method",
        json_schema_extra={"argument": "STORE"})
    merge: bool = Field(False, description="take the stores as parts of one run over different images")
    paired: bool = Field(False, description="add what each run lacks from the first one, such as its float32 original, "
                                            "image by image, with paired intervals")
    one_pass: bool = Field(False, description="add the accuracy left to a classifier that answers with one noisy copy, "
                                              "against an adversary who does not see the noise: a marginal claim")
    envelope: bool = Field(False, description="add the best of all runs (of each METHOD) at each radius, with "
                                               "intervals at rho / runs; an oracle, which no one classifier is")


class CompareConfig(NormConfig):
    """Options of `smoothcert compare`."""

    store: str = Field(description="a store, a log (TSV) or a count file (NPZ)",
                       json_schema_extra={"argument": "STORE"})
    other: str = Field(description="another one over the same images", json_schema_extra={"argument": "OTHER"})


class BoundConfig(Config):
    """Options of the figures that requirements are held against."""

    bound: Literal["population", "test_set", "bernstein", "all_radii", "observed"] = Field(
        "population", description="figures to compare: lower limits for new images (population), for these images "
                                  "(test_set, bernstein; all_radii: at every radius at once), or observed")


class CheckConfig(LogsConfig, BoundConfig):
    """Options of `smoothcert check`."""

    store: Stored = Field(description="a finished store, a log (TSV) or a count file (NPZ)",
                          json_schema_extra={"argument": "STORE"})
    require: Stores = Field(description="what has to hold, such as 'accuracy@0.5 >= 0.40'; may be given several times",
                            json_schema_extra={"metavar": "REQUIREMENT", "repeatable": True})
    rho: Probability = Field(0.05, description="failure probability of each limit")
    junit: Local | None = Field(None, description="also write the outcomes as JUnit XML",
                                json_schema_extra={"metavar": "FILE"})

    def _parts(self) -> Iterator[Part]:
        from smoothcert.results.requirements import parse_requirements  # brings NumPy, which --help does without

        yield {"require"}, lambda: parse_requirements(self.require)


class InfoConfig(RecordsConfig, IntervalsConfig):
    """Options of `smoothcert info`."""

    path: Stored | None = Field(None, description="a store, a log (TSV), a count file (NPZ), a model directory or a "
                                                  "file of weights", json_schema_extra={"argument": "PATH"})
    parts: bool = Field(False, description="list the objectives, attacks, noises, denoisers, models, data sets and "
                                           "kinds of picture that can be named, with the packages that they come from")
    out: Local | None = Field(None, description="write there instead of printing",
                              json_schema_extra={"metavar": "FILE"})


    def _contradictions(self) -> Iterator[str]:
        if (self.path is None) == (not self.parts):
            yield "give either PATH, what to describe, or parts, to list what can be named"


class ExportConfig(RecordsConfig):
    """Options of `smoothcert export`."""

    store: Stored = Field(description="a store, a log (TSV) or a count file (NPZ)",
                          json_schema_extra={"argument": "STORE"})
    out: Local = Field(description="FILE.tsv (log), FILE.npz (counts) or FILE.parquet (table)",
                       json_schema_extra={"metavar": "FILE"})


class RecertifyTableConfig(PrintedConfig, IntervalsConfig):
    """Options of `smoothcert recertify`: recomputed certificates, and the table of them."""

    store: Stored = Field(description="a store of `smoothcert certify`, or a count file (NPZ)",
                          json_schema_extra={"argument": "STORE"})
    alpha: Probability | None = Field(None, description="failure probability of each certificate (default: as stored)")
    method: Method | None = Field(None, description="two-sided, cohen or t-certify (default: as stored)")
    margin: Annotated[Real, Field(ge=0, lt=0.5)] | None = Field(
        None, description="tau: the radius within which the class keeps probability 1/2 + tau (default: as stored)")
    no_margin: bool = Field(False, description="drop the stored margin: plain radii")
    top_k: Count | None = Field(None, description="radii within which the class stays among the k most probable ones")
    groups: Local | None = Field(None, description="radii within which the answer stays in one group of classes: YAML "
                                                   "or JSON, NAME: [CLASS, ...]", json_schema_extra={"metavar": "FILE"})
    costs: Local | None = Field(None, description="radii within which no harmful target of the class is answered: YAML "
                                                  "or JSON, CLASS: [CLASS, ...]", json_schema_extra={"metavar": "FILE"})
    labels_known: bool = Field(False, description="with top-k, groups or costs: judge the label's class in place of "
                                                  "the chosen one, as top-k accuracy does")
    noise: Any = Field(None, description="noise of the run, where it is your own code: file.py:NAME or "
                                              "package.module:NAME")
    out: Stored | None = Field(None, description="keep the result as a store of its own")

    def _contradictions(self) -> Iterator[str]:
        if sum(one is not None for one in (self.top_k, self.groups, self.costs)) > 1:
            yield "top-k, groups and costs are different claims: give one of them"
        if self.no_margin and self.margin is not None:
            yield "margin and no-margin exclude each other: give one of them"


class CostConfig(Config):
    """Options of `smoothcert cost`."""

    store: Stored | None = Field(None, description="a pilot: a store of certify or predict over some images",
                                 json_schema_extra={"argument": "STORE"})
    images: Count = Field(description="images of the run to forecast")
    n: Count | None = Field(None, description="samples an image, a fixed number (default: the pilot's mean)")
    samples_per_image: Sigma | None = Field(None, description="mean samples an image, all together (default: the "
                                                              "pilot's)")
    rate: Sigma | None = Field(None, description="samples/s of one worker (default: the pilot's)")
    machines: Count = Field(1, description="number of machines")
    workers_per_machine: Count = Field(1, description="workers of each: processes, or GPUs")
    block: Count | None = Field(None, description="images handed out together (default: 1; several machines: 16)")
    startup: Weight = Field(0.0, description="seconds before a worker's first sample")
    price: Sigma | None = Field(None, description="price of a machine-hour, in any currency")
    preemptions_per_hour: Weight = Field(0.0, description="how often a spot machine is taken away, each time losing a "
                                                          "block")

    def _contradictions(self) -> Iterator[str]:
        if self.n is not None and self.samples_per_image is not None:
            yield "n and samples-per-image both say how many samples an image takes: give one"


class StoredImages(ReadingConfig):
    """Options that say where the inputs of a store are, and how the run read them, if it was told."""

    data: str | None = Field(None, description="where images are, as for certify (default: as stored)")
    data_dir: Local | None = Field(None, description="folder with the data sets' files")
    numeric_classes: bool = Field(False, description="numeric-classes of the run, if it was given it")


class PlanConfig(StoredImages):
    """Options of `smoothcert plan`."""

    pilot: Stored | None = Field(None, description="a pilot: a store of certify or predict over some 50 images, a "
                                                   "count file, or a published log",
                                 json_schema_extra={"argument": "PILOT"})
    radius: Weight | None = Field(None, description="the radius of the claim, in the data's units")
    accuracy: Probability | None = Field(None, description="wanted: at least this share of new images is certified at "
                                                           "the radius; or give a budget, which buys the highest share")
    samples: Sigma | None = Field(None, description="budget: samples of the whole run, on average")
    minutes: Sigma | None = Field(None, description="budget: minutes, at the rate")
    money: Sigma | None = Field(None, description="budget: money, at the rate and the price")
    price: Sigma | None = Field(None, description="price of a machine-hour, in any currency")
    rate: Sigma | None = Field(None, description="samples/s of the whole run (default: the pilot's)")
    rho: Probability = Field(0.05, description="failure probability of the claim")
    chance: Probability = Field(0.8, description="with which the run is to prove the claim, as the pilot foresees")
    alpha: Probability | None = Field(None, description="failure probability of each certificate (default: chosen)")
    images: Count | None = Field(None, description="number of images of the data set (default: looked up; logs do not "
                                                   "say where)")
    seed: Whole = Field(0, description="of the random choice of images")
    check: Stored | None = Field(None, description="say what became of the claim of this finished store; with PILOT "
                                                   "also check that it has none of the pilot's images",
                                 json_schema_extra={"metavar": "STORE"})
    out: Local | None = Field(None, description="keep the plan there: a file for certify --config",
                              json_schema_extra={"metavar": "FILE"})

    def request(self) -> "ClaimRequest":
        """Return what is asked for. Raises InputError unless it is one claim or one budget."""
        from smoothcert.results.planning import ClaimRequest

        return ClaimRequest(**{name: getattr(self, name) for name in ClaimRequest.__dataclass_fields__})

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        if self.check is None and self.radius is not None:
            yield {*type(self).model_fields} - {"pilot", "check", "out"}, self.request

    def _contradictions(self) -> Iterator[str]:
        if self.check is not None:
            if other := sorted(self.model_fields_set - {"check", "pilot"}):
                yield f"check reads a store, which has the claim: leave {', '.join(other)} out"
            return
        if self.pilot is None or self.radius is None:
            yield "give PILOT and radius; or check, a store whose claim is to be read"


class RouteConfig(PrintedConfig, IntervalsConfig):
    """Options of `smoothcert route`: composed certificates, and the table of them."""

    router: Stored = Field(description="store of certify, of the router over the same images",
                           json_schema_extra={"argument": "ROUTER"})
    stores: Stores = Field(description="stores of certify, of the classifiers that it chooses among: L=STORE, L being "
                                       "the router's class, 0, 1, ...", json_schema_extra={"argument": "L=STORE"})
    out: Stored = Field(description="store of the composed classifier")

    @property
    def classifiers(self) -> tuple[Place, ...]:
        """The stores in the order of the router's classes."""
        named = dict(one.split("=", 1) for one in self.stores if "=" in one)
        return tuple(place(named[str(k)]) for k in range(len(self.stores)) if str(k) in named)

    def _contradictions(self) -> Iterator[str]:
        if len(self.classifiers) != len(self.stores):
            yield (f"give each class of the router its store, 0=STORE 1=STORE and so on, each class once; got "
                   f"{' '.join(self.stores)}")


class LabelBestConfig(Config):
    """Options of `smoothcert label-best`."""

    stores: Stores = Field(description="stores of certify over the same training images, in the order of the router's "
                                       "classes", json_schema_extra={"argument": "STORE"})
    out: Local = Field(description="file of labels, which train takes as --data labels:FILE",
                       json_schema_extra={"metavar": "FILE"})


class StoredModel(ModelConfig):
    """Options that name the base classifier of a store."""

    model: str = Field(description="the base classifier, as for certify")


class AnyStoredDenoiser(Config):
    """Options that name a denoiser for the noise of a store, or none."""

    denoiser: DenoiserPart = Field(None, description="directory of a trained denoiser, for the run's sigma; or "
                                                     "file.py:CLASS, package.module:CLASS",
                                   json_schema_extra={"metavar": "PATH"})


class StoredDenoiser(AnyStoredDenoiser):
    """Options that name a denoiser for the noise of a store, and a walk after it."""

    denoiser: DenoiserPart = Field(
        description="directory of a trained denoiser, for the run's sigma; or file.py:CLASS, package.module:CLASS",
        json_schema_extra={"metavar": "PATH"})
    walk_jump: Local | None = Field(None, description="directory of a second denoiser, as for certify")
    front_option: Options = Field(default_factory=dict, description="option of the walk, as for certify, KEY=VALUE "
                                                                    "(repeatable)")


class ReportConfig(RadiiConfig, LogsConfig, StoredImages):
    """Options of `smoothcert report`."""

    stores: Stores = Field(description="stores, logs (TSV) or count files (NPZ), also attack stores",
                           json_schema_extra={"argument": "STORE"})
    out: Local = Field(description="the page, one HTML file", json_schema_extra={"metavar": "FILE"})
    title: str = Field("", description="heading of the page (default: names the runs)")
    noise: NoiseKind | None = Field(None, description="noise of the runs, where it is your own code: file.py:NAME or "
                                                      "package.module:NAME")
    no_gallery: bool = Field(False, description="show no images")
    selftest: Local | None = Field(None, description="show this result of `smoothcert selftest -o`",
                                   json_schema_extra={"metavar": "FILE"})
