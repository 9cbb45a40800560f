"""The identity of a store: what was run, parsed once from its manifest, checked as it is read, compared on resume.

Anyone can write a manifest, and its hash. Every field that readers use is checked for its type and its range; more
fields do no harm. Whether an identity is true is another question, which `smoothcert verify` answers as far as a store
can.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from smoothcert.data import even_places
from smoothcert.errors import InputError, StoreError
from smoothcert.io.files import list_problems
from smoothcert.limits import CLASSES
from smoothcert.stats import Claim
from smoothcert.stats.claims import claim_from

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Numbers = Annotated[list[_Number], Field(max_length=100_000)]

_UNLISTED = "see the records"


class IdentityPart(BaseModel):
    """A part of an identity: its fields with their types, and `raw`, the mapping that it was parsed from."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="allow", strict=True, frozen=True, protected_namespaces=(), populate_by_name=False)
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        part = handler(value)
        if isinstance(value, dict):
            part._raw = value
        return part

    @property
    def raw(self) -> dict[str, Any]:
        """The mapping as the manifest holds it, which is what identities are compared and hashed by."""
        return self._raw


class RuntimeIdentity(IdentityPart):
    """The runtime that decides a network's answers, its version, and the processors that give the same ones."""

    name: str
    version: str
    instructions: str


class ModelIdentity(IdentityPart):
    """The base classifier, known `by` its module, its file, a given id, or its answers to fixed inputs."""

    by: Literal["module", "file", "id", "probe"]
    sha256: str | None = None
    id: str | None = None
    output: str | None = None
    input_dtype: str | None = None
    sources: dict[str, str] = {}
    attributes: str | None = None
    runtime: RuntimeIdentity | None = None
    answers: _Numbers = []


class DataIdentity(IdentityPart):
    """The data set, the shape of its inputs, (C, H, W) of images, and the SHA-256 of those that the run is of.

    `bounds` are named where they are others than those of images.
    """

    name: str
    split: str
    sha256: str
    shape: Annotated[list[Annotated[int, Field(ge=1, le=10**9)]], Field(min_length=1, max_length=16)]
    bounds: Annotated[tuple[float, float], Field(strict=False)] | None = (0.0, 1.0)


class NoData(IdentityPart):
    """The place of a data set in a store that was made from counts alone."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class ImageList(IdentityPart):
    """The images of the data set that a run is of: a range, evenly spaced places in one, or a list of indices."""

    count: _Count
    start: _Count = 0
    every: Annotated[int, Field(ge=1, lt=2**53)] = 1
    of: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    indices: list[_Count] | str | None = None

    def at(self, places: np.ndarray) -> np.ndarray | None:
        """Return the images (m,) int64 at these places of the run's list; None where they are not told.

        Raises IndexError for a place that a list of indices does not have.
        """
        if self.of is not None:
            return self.start + self.every * even_places(places, self.count, self.of)
        if "every" in self.model_fields_set:
            return self.start + self.every * places
        return np.asarray(self.indices, dtype=np.int64)[places] if isinstance(self.indices, list) else None


class NoiseIdentity(IdentityPart):
    """The kind of noise, its level and the format of its random numbers."""

    kind: str
    sigma: float
    sources: dict[str, str] = {}
    format: str = ""
    levels: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    reach: _Above | None = None


class Procedure(IdentityPart):
    """The procedure: the samples that are drawn for an image, and what its votes mean (`smoothcert.stats.plan_from`).

    `decided` is False where certificates were computed again from looks that had stopped by the rules of others. Of a
    transfer, `share` is the part of alpha that the flips spend, and `source` the procedure of the run that it is from.
    `claim` is what the radii claim, where they are no plain ones (`smoothcert.stats.claims`).
    """

    method: str | None
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    n: _Count | list[_Count] | None = None
    n0: _Count | None = None
    n_max: _Count | None = None
    margin: _Number | None = None
    design: str = "fixed"
    version: Annotated[int, Field(ge=1, lt=2**53)] = 1
    radii: _Numbers | None = None
    loss: _Number | None = None
    to: _Above | None = None
    decided: bool = True
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    source: dict[str, Any] | None = None
    claim_or_none: dict[str, Any] | None = Field(None, alias="claim")

    @property
    def claim(self) -> Claim | None:
        """The claim of the radii; None for plain ones. Raises StoreError for what is no claim."""
        return claim_of(self.raw)


def claim_of(procedure: Mapping[str, Any]) -> Claim | None:
    """Return the claim of a procedure; None for plain radii. Raises StoreError for what is no claim."""
    try:
        return claim_from(procedure["claim"]) if procedure.get("claim") is not None else None
    except InputError as error:
        raise StoreError(str(error)) from None


class AttackIdentity(IdentityPart):
    """The attack and its grid of settings: sizes (`eps`, or `times` a certified radius), noisy copies m, and steps."""

    name: str
    options: dict[str, str | _Number | bool | None]
    sources: dict[str, str] = {}
    m: list[_Count]
    steps: list[_Count]
    target: int | str | None
    eps: _Numbers | None = None
    times: _Numbers | None = None
    only_right: bool = False
    adversaries: bool = False


class DistributionalIdentity(IdentityPart):
    """The loss, its ceiling, the prices gamma of the two forms of the bound, and how the ascents searched."""

    loss: str
    ceiling: _Number | None
    gamma: _Numbers
    gamma_adv: _Numbers
    search: dict[str, Any] | None
    eps_equivalent: bool = False


class RegressionIdentity(IdentityPart):
    """The percentile p that is bounded within each radius, the outputs M of the function, and the ranks, from 1 to n,
    of the order statistics that each record keeps (`smoothcert.stats.percentiles`)."""

    percentile: Annotated[float, Field(gt=0, lt=1)]
    radii: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1, max_length=1000)]
    outputs: Annotated[int, Field(ge=1, le=CLASSES)]
    ranks: Annotated[list[Annotated[int, Field(ge=1, lt=2**53)]], Field(min_length=1, max_length=100_000)]


class MultiLabelIdentity(IdentityPart):
    """The labels L that a classifier gives to an input, and the threshold that an output exceeds where one is present.
    """

    labels: Annotated[int, Field(ge=1, le=CLASSES)]
    threshold: _Number


class TransferSource(IdentityPart):
    """The run that certificates were transferred from: the digest of its store, its base classifier, its seed, and how
    its votes were computed."""

    digest: str
    model: ModelIdentity
    seed: Annotated[int, Field(ge=0, lt=2**128)]
    engine: str = ""
    precision: str = ""
    batch_size: Annotated[int, Field(ge=1, lt=2**53)] | None = None


class ClaimIdentity(IdentityPart):
    """The claim that a run was planned for: the share of new images to be certified at a radius, and rho.

    `pilot` is the digest of the store, or the SHA-256 of the file, that it was planned by.
    """

    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    accuracy: Annotated[float, Field(gt=0, lt=1)]
    rho: Annotated[float, Field(gt=0, lt=1)]
    pilot: str


class RoutedIdentity(IdentityPart):
    """The digests of the stores that composed certificates are from, the classifiers in the order of their numbers."""

    router: str
    classifiers: list[str]


class Identity(IdentityPart):
    """Everything that determines the records of a store.

    Logs and count files have one too, as far as it is known: of a log sigma may be NaN, and n unknown.

    Attributes:
        num_classes: K; of a regression, M, the number of its outputs; 2 of multi-label runs: absent and present.
        norm: that of the radii; None means l2.
        printed: the radii were printed in few digits, and may have been rounded up.
        adversaries: the attack whose images a predict store is of.
        recertified_from, counted_from: `digest` of the certify store that this one was computed from.
        transferred_from: the run of another base classifier that these certificates rest on.
        claim: about new images, which the run was planned for.
        routed_from: the stores whose certificates these are composed of.
    """

    kind: Literal["certify", "predict", "attack", "distributional", "multi-label", "regression"]
    num_classes: Annotated[int, Field(ge=1, le=CLASSES)]
    images: ImageList
    noise: NoiseIdentity
    procedure: Procedure
    seed_or_none: Annotated[int, Field(ge=0, lt=2**128)] | None = Field(None, alias="seed")
    model_or_none: ModelIdentity | None = Field(None, alias="model")
    data_or_none: DataIdentity | NoData = Field(NoData(), alias="data")
    records_per_image: Annotated[int, Field(ge=1, le=10**6)] = 1
    space: str = ""
    engine: str = ""
    precision: str = ""
    device: str = ""
    batch_size: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    runtime: RuntimeIdentity | None = None
    norm: str | None = None
    attack_or_none: AttackIdentity | None = Field(None, alias="attack")
    distributional_or_none: DistributionalIdentity | None = Field(None, alias="distributional")
    regression_or_none: RegressionIdentity | None = Field(None, alias="regression")
    multi_label_or_none: MultiLabelIdentity | None = Field(None, alias="multi_label")
    adversaries: dict[str, Any] | None = None
    printed: bool = False
    recertified_from: str | None = None
    counted_from: str | None = None
    transferred_from: TransferSource | None = None
    claim: ClaimIdentity | None = None
    routed_from: RoutedIdentity | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any], where: str = "this identity") -> Self:
        """Check what a run or a manifest says it is. Raises StoreError, which names every wrong field."""
        try:
            return cls.model_validate(json.loads(json.dumps(raw)))
        except ValidationError as error:
            raise StoreError(list_problems(f"{where} is not what a store's manifest is", error)) from None

    def check_stored(self) -> None:
        """Raise ValueError unless the identity has what every store on disk has."""
        if not (0 < self.noise.sigma < float("inf")):
            raise ValueError(f"its sigma must be a finite number above 0, got {self.noise.sigma}")
        if self.num_classes < 2 and self.kind != "regression":
            raise ValueError(f"it must have at least 2 classes, got {self.num_classes}")
        if self.procedure.method is None:
            raise ValueError("its procedure lacks the method")
        if self.model_or_none is not None and isinstance(self.data_or_none, NoData):
            raise ValueError("it names a model and no data")
        if self.kind in ("attack", "distributional", "regression", "multi-label") and getattr(
                self, f"{self.kind.replace('-', '_')}_or_none") is None:
            raise ValueError(f"it does not say which {self.kind} runs it holds")
        sampled = self.procedure.n_max is not None or bool(self.procedure.n)
        if self.regression_or_none is not None:
            check_regression(self)
        if self.multi_label_or_none is not None and (
                self.records_per_image, self.num_classes) != (self.multi_label_or_none.labels, 2):
            raise ValueError(f"it has {self.records_per_image} records for each input and {self.num_classes} classes, "
                             f"and {self.multi_label_or_none.labels} labels that are present or absent")
        if self.kind in ("certify", "predict", "multi-label") and (self.procedure.alpha is None or not sampled):
            raise ValueError("its procedure lacks alpha, or both n and n_max")
        if self.kind in ("certify", "multi-label") and "margin" not in self.procedure.model_fields_set:
            raise ValueError("its procedure lacks the margin")
        if self.procedure.raw.get("claim") is not None:
            claim_from(self.procedure.raw["claim"]).check(self.num_classes)
        if (self.procedure.design == "transfer") != (self.transferred_from is not None):
            raise ValueError("it is a transfer and does not say from which run, or the other way round")

    @property
    def of_outputs(self) -> bool:
        """True where the records are of a function's outputs, and the data have targets in place of classes."""
        return self.kind in ("regression", "multi-label")

    @property
    def seed(self) -> int:
        """The seed of every stream. Raises StoreError where it is not known, as in a log; so do the next six."""
        return self._need("seed", self.seed_or_none)

    @property
    def model(self) -> ModelIdentity:
        """The base classifier."""
        return self._need("model", self.model_or_none)

    @property
    def data(self) -> DataIdentity:
        """The data set."""
        return self._need("data", self.data_or_none if isinstance(self.data_or_none, DataIdentity) else None)

    @property
    def attack(self) -> AttackIdentity:
        """The attack, of an attack store."""
        return self._need("attack", self.attack_or_none)

    @property
    def distributional(self) -> DistributionalIdentity:
        """The loss and the prices, of a distributional store."""
        return self._need("distributional run", self.distributional_or_none)

    @property
    def regression(self) -> RegressionIdentity:
        """The percentile and the radii, of a regression store."""
        return self._need("regression", self.regression_or_none)

    @property
    def multi_label(self) -> MultiLabelIdentity:
        """The labels and the threshold, of a multi-label store."""
        return self._need("multi-label run", self.multi_label_or_none)

    def _need(self, name: str, part: Any) -> Any:
        if part is None:
            raise StoreError(f"this needs the {name} of a run, which {self.kind} records without a store do not tell")
        return part

    @property
    def record_count(self) -> int:
        """The number of records of a finished store."""
        return self.images.count * self.records_per_image

    @property
    def digest(self) -> str:
        """SHA-256 of the identity, by which another store says that it was computed from this one."""
        return hashlib.sha256(json.dumps(self.raw, sort_keys=True).encode()).hexdigest()

    def replace(self, **changes: Any) -> Self:
        """Return an identity with other values of some fields, each as a manifest would hold it."""
        return type(self).parse({**self.raw, **changes})


def check_regression(identity: Identity) -> None:
    """Raise ValueError where the ranks or the number of records of a regression store contradict its other fields."""
    run, n = identity.regression, identity.procedure.n
    if identity.procedure.alpha is None or not isinstance(n, int) or n < 1:
        raise ValueError("its procedure lacks alpha or n")
    if run.ranks != sorted(set(run.ranks)) or (run.ranks[0], run.ranks[-1]) != (1, n):
        raise ValueError(f"its ranks must ascend from 1 to n {n}")
    if identity.records_per_image != run.outputs:
        raise ValueError(f"it has {identity.records_per_image} records for each input, and {run.outputs} outputs")


def describe_images(indices: np.ndarray) -> dict[str, Any]:
    """Return which images a run is of, in few words: a range where they are one, else a list of up to 1,000 indices.

    Of more, evenly spaced ones are `count` places over `of` images of a range; others are left to the data's hash.
    """
    count, start = len(indices), int(indices[0])
    every = int(indices[1] - indices[0]) if count > 1 else 1
    if every > 0 and np.array_equal(indices, start + every * np.arange(count)):
        return {"count": count, "start": start, "every": every}
    if count <= 1000:
        return {"count": count, "indices": indices.tolist()}
    every = int(np.gcd.reduce(np.diff(indices)))
    of = (int(indices[-1]) - start) // every + 1
    if of > count and np.array_equal(indices, start + every * even_places(np.arange(count), count, of)):
        return {"count": count, "start": start, "every": every, "of": of}
    return {"count": count, "indices": _UNLISTED}


def are_first(indices: np.ndarray, images: ImageList) -> bool:
    """Return whether a store is known to hold just these images; a hash alone says nothing."""
    described = describe_images(indices)
    return described == images.raw and described.get("indices") != _UNLISTED
