"""The identity of a store: what was run, parsed once from its manifest, checked as it is read, compared on resume.

Anyone can write a manifest, and its hash. Every field that readers use is checked for its type and its range; more
fields do no harm. Whether an identity is true is another question, which `smoothcert verify` answers as far as a store
can.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from smoothcert.errors import StoreError
from smoothcert.io.files import list_problems
from smoothcert.limits import CLASSES
from smoothcert.stats.claims import claim_from
from smoothcert.store.identity_parts import (
    AttackIdentity,
    ClaimIdentity,
    DataIdentity,
    DistributionalIdentity,
    IdentityPart,
    ImageList,
    ModelIdentity,
    MultiLabelIdentity,
    NoData,
    NoiseIdentity,
    Procedure,
    RegressionIdentity,
    RoutedIdentity,
    RuntimeIdentity,
    TransferSource,
)


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
