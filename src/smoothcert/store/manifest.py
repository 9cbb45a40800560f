"""The manifest of a store: what the run is, where it came from, which shards are finished, and a hash of all that."""

import hashlib
import json
import re
from typing import Any

import numpy as np

from smoothcert.data import even_places
from smoothcert.errors import FileError, IdentityError, StoreError
from smoothcert.io.files import read_json, write_json
from smoothcert.io.paths import Place
from smoothcert.store.identity import check_manifest
from smoothcert.store.records import VALUES
from smoothcert.store.sameness import differences, without_unrecorded

VERSION = 2
"""Version 1 had no hash of the manifest itself; it is read and gone on with, and keeps its number."""

NAME = "manifest.json"
_FIELDS = {"version", "identity", "provenance", "shards", "complete"}


def new_manifest(identity: dict[str, Any], provenance: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a store that is to be filled."""
    return {"version": VERSION, "identity": identity, "provenance": provenance, "shards": [], "complete": False}


def write_manifest(folder: Place, manifest: dict[str, Any]) -> None:
    """Write it whole, sealed with its hash."""
    seal = {} if manifest["version"] == 1 else {"sha256": _seal(manifest)}
    write_json(folder / NAME, {**manifest, **seal})


def is_store(folder: Place) -> bool:
    return (folder / NAME).is_file()


def check_is_store(folder: Place) -> None:
    """Raise FileError for what has no manifest."""
    if not is_store(folder):
        raise FileError(f"{folder} is no store: it has no {NAME}" if folder.exists() else f"there is no store {folder}")


def read_manifest(folder: Place) -> dict[str, Any]:
    """The manifest of a store, without its seal; FileError or StoreError for what is none or has changed."""
    check_is_store(folder)
    path = folder / NAME
    manifest = read_json(path)
    if not isinstance(manifest, dict) or _FIELDS - set(manifest):
        raise StoreError(f"{path} is not the manifest of a store")
    seal = manifest.pop("sha256", None)
    if manifest["version"] not in (1, VERSION):
        raise StoreError(f"{folder} has store version {manifest['version']}; this smoothcert reads version {VERSION}")
    if seal != (None if manifest["version"] == 1 else _seal(manifest)):
        raise StoreError(f"{path} has changed since it was written (its SHA-256 differs from what it says): restore "
                         f"it, or start the run again in another folder")
    _check_content(folder, manifest)
    return manifest


def record_count(identity: dict[str, Any]) -> int:
    """How many records a finished store of this identity has: one an image, or as many as it says."""
    return identity["images"]["count"] * identity.get("records_per_image", 1)


def images_at(identity: dict[str, Any], places: np.ndarray) -> np.ndarray | None:
    """(m,) int64: the images at these places of a run's list; None where only the data's hash knows them."""
    told = identity["images"]
    if told.get("of") is not None:
        return told["start"] + told["every"] * even_places(places, told["count"], told["of"])
    if "every" in told:
        return told["start"] + told["every"] * places
    return np.asarray(told["indices"], dtype=np.int64)[places] if isinstance(told["indices"], list) else None


def check_identity(folder: Place, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise IdentityError, naming every differing field, unless the two are equal."""
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
    if any(name.startswith("images.") for name in found):
        advice += ("\nA store keeps the images that it was begun with. --max-images chooses evenly spaced ones, so "
                   "that another number is another choice, and not more of the same: it needs another -o.")
    if stored["kind"] == "certify" and set(found) <= {f"procedure.{name}" for name in ("alpha", "method", "margin")}:
        advice += "\n`smoothcert recertify` recomputes a finished store at another alpha, method or margin."
    raise IdentityError(f"{folder} holds another run, which differs in:\n" + "\n".join(lines) + f"\n{advice}")


def _seal(manifest: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(manifest))
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _check_content(folder: Place, manifest: dict[str, Any]) -> None:
    shards, identity = manifest["shards"], manifest["identity"]
    well_named = isinstance(shards, list) and all(
        isinstance(shard, dict) and re.fullmatch(r"shard-\d{5,}\.parquet", str(shard.get("name")))
        and "sha256" in shard and isinstance(shard.get("records"), int)
        for shard in shards)
    if not well_named:
        raise StoreError(f"{folder / NAME} names shards that are none of a store's")
    kind = identity.get("kind") if isinstance(identity, dict) else None
    if not isinstance(kind, str) or kind not in VALUES:
        raise StoreError(f"{folder} is a store of kind {kind!r}; this smoothcert reads {', '.join(VALUES)}")
    check_manifest(manifest, str(folder / NAME))

