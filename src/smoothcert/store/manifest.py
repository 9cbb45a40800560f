"""The manifest of a store: what the run is, where it came from, which shards are finished, and a hash of all that."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from smoothcert.errors import FileError, IdentityError, StoreError
from smoothcert.io.files import list_problems, read_json, write_json
from smoothcert.io.paths import Place
from smoothcert.store.comparison import differences, without_unrecorded
from smoothcert.store.identity import Identity
from smoothcert.store.identity_parts import IdentityPart
from smoothcert.store.records import VALUES

VERSION = 2
"""Version 1 had no hash of the manifest itself; it is read and gone on with, and keeps its number."""

NAME = "manifest.json"


class Provenance(IdentityPart):
    """The origin of a store: shown, never compared."""

    model: str = ""
    notes: list[str] = Field(default_factory=list)
    classes: list[str] | None = None
    rho: list[Annotated[float, Field(allow_inf_nan=False)]] | None = None
    versions: dict[str, Any] = Field(default_factory=dict)
    log: str | None = None
    cards: list[str] = Field(default_factory=list)


class ShardEntry(IdentityPart):
    """A finished shard, as the manifest names it."""

    name: Annotated[str, Field(pattern=r"^shard-\d{5,}\.parquet$")]
    records: int
    sha256: str


class _Content(IdentityPart):
    version: Literal[1, 2]
    identity: Identity
    provenance: Provenance
    shards: list[ShardEntry]
    complete: bool

    @model_validator(mode="after")
    def _check_identity(self) -> Self:
        self.identity.check_stored()
        return self


@dataclass
class Manifest:
    """The manifest of a store that is being filled or read."""

    identity: Identity
    provenance: Provenance
    shards: list[ShardEntry] = field(default_factory=list)
    complete: bool = False
    version: int = VERSION

    def write(self, folder: Place) -> None:
        """Write it whole, sealed with its hash."""
        content = {"version": self.version, "identity": self.identity.raw, "provenance": self.provenance.raw,
                   "shards": [entry.raw for entry in self.shards], "complete": self.complete}
        write_json(folder / NAME, content if self.version == 1 else {**content, "sha256": _seal(content)})


def is_store(folder: Place) -> bool:
    """Return whether a folder holds a store."""
    return (folder / NAME).is_file()


def check_is_store(folder: Place) -> None:
    """Raise FileError for a folder that has no manifest."""
    if not is_store(folder):
        raise FileError(f"{folder} is not a store: it has no {NAME}" if folder.exists() else
                        f"there is no store {folder}")


def read_manifest(folder: Place) -> Manifest:
    """Read the manifest of a store. Raises FileError or StoreError where there is none, or it has changed."""
    check_is_store(folder)
    path = folder / NAME
    content = read_json(path)
    if not isinstance(content, dict) or set(_Content.model_fields) - set(content):
        raise StoreError(f"{path} is not the manifest of a store")
    seal = content.pop("sha256", None)
    if content["version"] not in (1, VERSION):
        raise StoreError(f"{folder} has store version {content['version']}; this smoothcert reads version {VERSION}")
    if seal != (None if content["version"] == 1 else _seal(content)):
        raise StoreError(f"{path} has changed since it was written (its SHA-256 differs from what it says): restore "
                         f"it, or start the run again in another folder")
    kind = content["identity"].get("kind") if isinstance(content["identity"], dict) else None
    if not isinstance(kind, str) or kind not in VALUES:
        raise StoreError(f"{folder} is a store of kind {kind!r}; this smoothcert reads {', '.join(VALUES)}")
    try:
        read = _Content.model_validate(content)
    except ValidationError as error:
        raise StoreError(list_problems(f"{path} is not what a store's manifest is", error)) from None
    return Manifest(read.identity, read.provenance, read.shards, read.complete, read.version)


def check_identity(folder: Place, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise IdentityError, which names every differing field, unless the two identities are equal."""
    found = differences(stored, wanted)
    if (stored.get("model") or {}).get("by") == "id":  # its name vouches for what an older store does not hold
        found = without_unrecorded(found, stored)
    if not found:
        return
    lines = [f"  - {name}: stored {before!r}, asked {now!r}" for name, (before, now) in found.items()]
    advice = "Give the same options to resume it, or another -o."
    if not without_unrecorded(found, stored):
        advice = ("It was begun by a smoothcert that did not record a model's sources, attributes and answers, so "
                  "nobody can tell whether the model is still the same: start again with another -o.")
    elif any(name.startswith("model.") for name in found):
        advice += (" One store holds one model, and this one has changed: `sources` are the files of its code, "
                   "`attributes` its settings outside the weights, `answers` those to fixed inputs.")
    if parts := [name for name in found if name.startswith(("model.runtime", "runtime"))]:
        runtime = (stored.get("model") or {}).get("runtime") if parts[0].startswith("model") else stored.get("runtime")
        kept = f" Go on with {runtime['name']} {runtime['version']} on a processor of the class " \
               f"{runtime['instructions']!r}." if runtime else ""
        advice += (f"\nThe runtime decides the answers of an integer network and of one in bfloat16, so it is part of "
                   f"what is certified.{kept}")
    if any(name.startswith("images.") for name in found):
        advice += ("\nA store keeps the images that it was begun with. --max-images chooses evenly spaced ones, so "
                   "that another number is another choice, and not more of the same: it needs another -o.")
    if stored["kind"] == "certify" and set(found) <= {f"procedure.{name}" for name in ("alpha", "method", "margin")}:
        advice += "\n`smoothcert recertify` recomputes a finished store at another alpha, method or margin."
    raise IdentityError(f"{folder} holds another run, which differs in:\n" + "\n".join(lines) + f"\n{advice}")


def describe_cards(cards: Sequence[str]) -> str:
    """Return a predicate for records that were made on several kinds of GPU."""
    return (f"holds records made on {' and on '.join(cards)}: each rounds in its own way, so that a few votes of close "
            f"calls may differ from those that one of them alone would give")


def _seal(content: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()
