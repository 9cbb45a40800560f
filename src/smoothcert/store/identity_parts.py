"""The parts of a store's identity, each with the types and the ranges of its fields: the model, the data, the images,
the noise, the procedure, and what a kind of store says besides."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, model_validator

from smoothcert.data import even_places
from smoothcert.errors import InputError, StoreError
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
