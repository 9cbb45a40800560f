"""Where a run found its images: a hidden note in its store, for the pictures of a report; no part of the results.

Images that are found by it are compared with the store's SHA-256 like any others: a wrong note shows no wrong images.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smoothcert.data.load import DISK_KINDS
from smoothcert.errors import SmoothcertError
from smoothcert.io.files import read_json, write_json
from smoothcert.io.paths import Place

if TYPE_CHECKING:
    from smoothcert.store.store import Store

NAME = ".source.json"

_PathText = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]+$")]


class Source(BaseModel):
    """A data set on a disk, and what was done to its images.

    Attributes:
        data: the kind, such as parquet or imagefolder, or the name of a set.
        place: the file or folder, or of a named set the folder that holds it, as an absolute path.
        from_store: the same, seen from the store's folder, for both that are moved together.
        resize, crop, features, label, bounds, levels, numeric_classes: as the run was given them.
    """

    model_config = ConfigDict(frozen=True)

    data: str
    place: _PathText
    from_store: _PathText | None = None
    resize: int | None = None
    crop: int | None = None
    features: tuple[str, ...] | None = None
    label: str | None = None
    bounds: Literal["none"] | tuple[float, float] | None = None
    levels: int | None = None
    numeric_classes: bool = False

    @classmethod
    def of(cls, spec: Any, folder: Path | str | None, **prepared: Any) -> Self | None:
        """Return where the data `spec` lies, `folder` being that of named sets; None where it lies in no file.

        Args:
            prepared: `numeric_classes`, and those of the options of how inputs are read that were given.
        """
        if not isinstance(spec, str):
            return None  # images that were given as an object
        kind, colon, location = spec.partition(":")
        if colon and kind not in DISK_KINDS:
            return None  # a user's own code
        where = location if colon else folder
        return None if where is None else cls(data=kind, place=os.path.abspath(os.path.expanduser(where)),
                                              **prepared)

    @property
    def prepared(self) -> dict[str, Any]:
        """The options of the run about its inputs that were given."""
        names = ("resize", "crop", "features", "label", "bounds", "levels", "numeric_classes")
        return {name: value for name in names if (value := getattr(self, name))}

    def places(self, store: Place) -> list[Path]:
        """Return where the data may lie, seen from a store."""
        found = [Path(self.place)]
        if self.from_store and isinstance(store, Path):
            found.append(Path(os.path.normpath(store.resolve() / self.from_store)))
        return list(dict.fromkeys(found))


def write_source(store: Place, source: Source) -> None:
    """Note where the images of a store lie."""
    near = None
    if isinstance(store, Path):
        with suppress(ValueError):  # on another drive
            near = os.path.relpath(source.place, store.resolve())
    write_json(store / NAME, source.model_copy(update={"from_store": near}).model_dump(exclude_defaults=True))


def read_source(store: Place) -> Source | None:
    """Return the note in a store's folder; None where there is none that can be read."""
    with suppress(SmoothcertError, ValidationError):
        if (store / NAME).is_file():
            return Source.model_validate(read_json(store / NAME))
    return None


def describe_source(store: "Store") -> dict[str, Any]:
    """Return the options, as of `certify`, of the images of a store, as far as it says where they are; {} for a log."""
    if not store.identity.data_or_none.raw:
        return {}
    data, noted = store.identity.data, read_source(store.folder)
    if noted is None or ":" not in data.name:
        found: dict[str, Any] = {"data": data.name}
    else:
        found = {"data": f"{noted.data}:{noted.place}"}
    return {**found, **(noted.prepared if noted is not None else {}), "split": data.split}
