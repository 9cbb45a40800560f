"""Reading all of a store that can be read, and naming everything that is wrong in its files.

`read_store` stops at the first fault instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from smoothcert.config.sampling import ATTACKED
from smoothcert.errors import SmoothcertError, StoreError
from smoothcert.io.files import read_json, sha256
from smoothcert.io.paths import Place
from smoothcert.store import store as stores
from smoothcert.store.adversaries import LISTING, read_adversaries
from smoothcert.store.identity import Identity
from smoothcert.store.journal import NAME as JOURNAL
from smoothcert.store.journal import read_journal
from smoothcert.store.manifest import Manifest, ShardEntry, read_manifest
from smoothcert.store.records import schema
from smoothcert.store.shards import Shard
from smoothcert.store.store import Store, shard_name

ALWAYS = ("index", "label", "prediction", "off_grid", "tallies")
"""Columns that have a value in every record."""


@dataclass(frozen=True)
class StoreCheck:
    """One thing that was looked at: its name, what it found, and what is wrong with it."""

    name: str
    told: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Readable:
    """The records of a store that could be read.

    Attributes:
        folder: the store's. manifest: as `read_manifest` gives it.
        positions: (M,) int64, ascending: where in the run's list they belong.
        table: their columns, `records.schema(kind)`.
    """

    folder: Place
    manifest: Manifest
    positions: np.ndarray
    table: pa.Table

    @property
    def identity(self) -> Identity:
        return self.manifest.identity

    @property
    def store(self) -> Store:
        """The store, of the records that could be read."""
        return Store(self.folder, self.identity, self.manifest.provenance, self.manifest.complete, self.table)


def read_all(folder: Place) -> tuple[Readable, list[StoreCheck]]:
    """Read every shard and journal line that can be read, and say what is wrong with the others.

    Raises:
        FileError, StoreError: the manifest itself cannot be read; without it nothing else is known.
    """
    manifest = read_manifest(folder)
    total, kind = manifest.identity.record_count, manifest.identity.kind
    if not total:
        raise StoreError(f"{folder} is of no images")
    found: dict[int, pa.Table] = {}
    problems: list[str] = []
    for entry in manifest.shards:
        try:
            k = int(entry.name.removeprefix("shard-").removesuffix(".parquet"))
            if shard_name(k) != entry.name or k * stores.SHARD >= total:
                raise StoreError(f"the shard {folder / entry.name} is none of a store of {total} records")
            if k in found:
                raise StoreError(f"the shard {folder / entry.name} is in the manifest twice")
            found[k] = _read_shard(folder, entry, kind, min(stores.SHARD, total - k * stores.SHARD))
        except StoreError as error:
            problems.append(str(error))
    seal = "no hash of its own (store version 1)" if manifest.version == 1 else "its own SHA-256 is right"
    shards = StoreCheck("shards", f"{len(manifest.shards)} named in the manifest, each with its SHA-256",
                        tuple(problems))
    positions = [k * stores.SHARD + i for k, part in found.items() for i in range(part.num_rows)]
    named = {entry.name for entry in manifest.shards}
    waiting = {p: r for p, r in read_journal(folder / JOURNAL).items() if shard_name(p // stores.SHARD) not in named}
    stray = [f"{folder / JOURNAL} has a record at position {p}, and the run ends at {total - 1}"
             for p in waiting if not 0 <= p < total]
    kept = {p: record for p, record in waiting.items() if 0 <= p < total}
    lines = pa.Table.from_pylist([record.row() for record in kept.values()], schema=schema(kind))
    order = np.argsort(np.array([*positions, *kept], dtype=np.int64))
    readable = Readable(folder, manifest, np.array([*positions, *kept], dtype=np.int64)[order],
                        pa.concat_tables([*found.values(), lines]).take(pa.array(order)))
    records = StoreCheck("records", f"{len(readable.positions)} of {total} can be read",
                         (*stray, *_name_missing(readable)))
    return readable, [StoreCheck("manifest", seal), shards, records]


def check_adversaries(readable: Readable, images: np.ndarray) -> StoreCheck:
    """Check the files of attacked images: each is listed with its SHA-256, and together they hold the run's images at
    every setting."""
    folder = readable.folder
    if not readable.identity.attack.adversaries:
        return StoreCheck("adversaries", "none were kept")
    if not (folder / LISTING).is_file():
        return StoreCheck("adversaries", f"no {LISTING}", (
            f"{folder / LISTING} is missing, and the run kept its attacked images: the same command writes it",))
    listing = read_json(folder / LISTING)
    try:
        return StoreCheck("adversaries", f"{len(listing)} files, each with its SHA-256",
                     (*_find_changed(folder, listing), *_find_other_images(folder, listing, images)))
    except (AttributeError, KeyError, TypeError):
        return StoreCheck("adversaries", "nothing that can be read", (f"{folder / LISTING} is no listing of files",))


def _read_shard(folder: Place, entry: ShardEntry, kind: str, size: int) -> pa.Table:
    """Return the records of one shard. Raises StoreError where it is not as it was written, or cannot be right."""
    table = Shard.read(folder, entry).columns(schema(kind))
    path = folder / entry.name
    if table.num_rows != size:
        raise StoreError(f"the shard {path} has {table.num_rows} records; {size} belong there")
    try:
        table.validate(full=True)
    except pa.ArrowException as error:
        raise StoreError(f"the shard {path} is corrupt: {error}") from None
    if empty := [name for name in ALWAYS if _has_nulls(table.column(name).combine_chunks())]:
        raise StoreError(f"the shard {path} has no value for {', '.join(empty)} in some records")
    return table


def _has_nulls(values: Any) -> bool:
    """Return whether a value is missing in an array or, at any depth, in its lists and structures."""
    if values.null_count:
        return True
    if pa.types.is_list(values.type):
        return _has_nulls(values.flatten())
    return pa.types.is_struct(values.type) and any(map(_has_nulls, values.flatten()))


def _name_missing(readable: Readable) -> Iterator[str]:
    read, total = len(readable.positions), readable.identity.record_count
    if read < total:
        first = int(np.argmax(np.append(readable.positions, -1) != np.arange(read + 1)))
        yield (f"{total - read} of {total} records are missing in {readable.folder}, the first at "
               f"position {first}")
    if not readable.manifest.complete:
        yield f"{readable.folder} is not complete: the same command finishes its run"


def _find_changed(folder: Place, listing: list[dict[str, Any]]) -> Iterator[str]:
    for entry in listing:
        path = folder / "adversaries" / PurePath(entry["file"]).name
        if path.name != entry["file"] or not path.is_file():
            yield f"{folder / 'adversaries'}/{entry['file']} is missing"
        elif sha256(path) != entry["sha256"]:
            yield f"{path} has changed since it was written (its SHA-256 differs from the listing's)"


def _find_other_images(folder: Place, listing: list[dict[str, Any]], images: np.ndarray) -> Iterator[str]:
    """Yield the settings whose files hold other images than the run's."""
    settings = {tuple((name, entry[name]) for name in ATTACKED if name in entry) for entry in listing}
    for setting in sorted(settings):
        try:
            index, moved = read_adversaries(folder, **dict(setting))  # type: ignore[arg-type]
        except SmoothcertError:
            continue  # its hash has told so
        if not np.array_equal(index, images) or not np.isfinite(moved).all():
            words = ", ".join(f"{name} {value:g}" for name, value in setting)
            yield f"the attacked images in {folder / 'adversaries'} at {words} are not of the run's images in order"
