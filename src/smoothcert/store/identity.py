"""What a store's manifest may say, checked when it is read: anyone can write a manifest, and its hash.

Only what readers use is checked, for its type and its range; more fields do no harm. Whether it is true is another
question, which `smoothcert verify` answers as far as a store can.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from smoothcert.errors import StoreError
from smoothcert.io.files import list_problems
from smoothcert.io.limits import CLASSES
from smoothcert.store.records import VALUES

_Count = Annotated[int, Field(ge=0, lt=2**53)]
_Above = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Numbers = Annotated[list[_Number], Field(max_length=100_000)]


class _Told(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, protected_namespaces=())


class _Model(_Told):
    by: Literal["module", "file", "id", "probe"]
    sha256: str | None = None
    id: str | None = None
    output: str | None = None
    input_dtype: str | None = None
    sources: dict[str, str] = {}
    attributes: str | None = None
    answers: _Numbers = []


class _Data(_Told):
    name: str
    split: str
    sha256: str
    shape: Annotated[list[Annotated[int, Field(ge=1, le=10**9)]], Field(min_length=3, max_length=3)]


class _Nothing(_Told):
    model_config = ConfigDict(extra="forbid")


class _Images(_Told):
    count: _Count
    start: _Count = 0
    every: Annotated[int, Field(ge=1, lt=2**53)] = 1
    of: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    indices: list[_Count] | str | None = None


class _Noise(_Told):
    kind: str
    sigma: _Above
    format: str = ""
    levels: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    reach: _Above | None = None


class _Procedure(_Told):
    method: str
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    n: _Count | list[_Count] | None = None
    n0: _Count | None = None
    n_max: _Count | None = None
    margin: _Number | None = None
    design: str = "fixed"
    radii: _Numbers | None = None
    loss: _Number | None = None
    decided: bool = True


class _Attack(_Told):
    name: str
    options: dict[str, str | _Number | bool | None]
    m: list[_Count]
    steps: list[_Count]
    target: int | str | None
    eps: _Numbers | None = None
    times: _Numbers | None = None


class _Distributional(_Told):
    loss: str
    ceiling: _Number | None
    gamma: _Numbers
    gamma_adv: _Numbers
    search: dict[str, Any] | None


class _Identity(_Told):
    kind: Literal[tuple(VALUES)]  # type: ignore[valid-type]
    num_classes: Annotated[int, Field(ge=2, le=CLASSES)]
    images: _Images
    noise: _Noise
    procedure: _Procedure
    seed: Annotated[int, Field(ge=0, lt=2**128)] | None = None
    model: _Model | None = None
    data: _Data | _Nothing = _Nothing()
    records_per_image: Annotated[int, Field(ge=1, le=10**6)] = 1
    space: str = ""
    engine: str = ""
    precision: str = ""
    device: str = ""
    attack: _Attack | None = None
    distributional: _Distributional | None = None
    printed: bool = False

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.model is not None and isinstance(self.data, _Nothing):
            raise ValueError("it names a model and no data")
        if self.kind in ("attack", "distributional") and getattr(self, self.kind) is None:
            raise ValueError(f"it does not say which {self.kind} runs it holds")
        if self.kind in ("certify", "predict") and (self.procedure.alpha is None or not self._samples):
            raise ValueError("its procedure lacks alpha, or both n and n_max")
        if self.kind == "certify" and "margin" not in self.procedure.model_fields_set:
            raise ValueError("its procedure lacks the margin")
        return self

    @property
    def _samples(self) -> bool:
        return self.procedure.n_max is not None or bool(self.procedure.n)


class _Provenance(_Told):
    model: str = ""
    notes: list[str] = []
    classes: list[str] | None = None
    rho: _Numbers | None = None


class _Shard(_Told):
    name: str
    sha256: str


class _Manifest(_Told):
    identity: _Identity
    provenance: _Provenance
    shards: list[_Shard]
    complete: bool


def check_manifest(manifest: dict[str, Any], where: str) -> None:
    """Raise StoreError, naming every field that no store has so, for a manifest that is none of ours."""
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        raise StoreError(list_problems(f"{where} is not what a store's manifest is", error)) from None
