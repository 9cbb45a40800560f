"""Stores, logs and count files, opened and written alike; and records as one flat parquet file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from smoothcert.errors import InputError, StoreError
from smoothcert.interop.counts import read_counts, write_counts
from smoothcert.interop.logs import read_log, write_log
from smoothcert.io.files import make_folder, write_whole
from smoothcert.io.paths import Place, place
from smoothcert.store.frames import TALLIES
from smoothcert.store.names import distinct_names, log_stem, name_of
from smoothcert.store.store import Store, read_store


@dataclass(frozen=True)
class Named:
    """Something to open, its name in tables, and the method it is a run of ("" where none is given)."""

    path: Place
    name: str
    group: str


def open_records(path: Place, alpha: float | None = None, radius_column: str | None = None) -> Store:
    """Open a store (a folder), a count file (`.npz`) or a log (any other file) as a store.

    Args:
        alpha: failure probability of each answer of a log that does not say it, or of a count file (else its own).
        radius_column: the column of a log that holds the radii; see `read_log`.
    Raises:
        FileError, StoreError: nothing is there, or it is none of them, or it is damaged.
    """
    if isinstance(path, Path) and path.is_file():
        return read_counts(path, alpha) if path.suffix == ".npz" else read_log(path, alpha, radius_column)
    return read_store(path)


def open_named(stores: Any) -> list[tuple[str, Store]]:
    """Return stores, opened, and their names.

    Args:
        stores: a store, its folder, a log or a count file; a list of them; or a mapping from names to them.
    Raises:
        FileError, StoreError: what `open_records` raises.
    """
    pairs = list(stores.items()) if isinstance(stores, dict) else \
        [(None, one) for one in (stores if isinstance(stores, list | tuple) else [stores])]
    found = [one if isinstance(one, Store) else open_records(place(str(one))) for _, one in pairs]
    names = distinct_names([store.folder for store in found])
    return [(given or log_stem(name), store) for (given, _), name, store in zip(pairs, names, found, strict=True)]


def open_votes(path: Place) -> Store:
    """Open what holds votes, as `open_records` does, or raise StoreError for a log, which holds answers only."""
    store = open_records(path)
    if store.provenance.log is not None:
        raise StoreError(f"{path} is a log: it holds no votes, only answers, so nothing can be computed anew from it")
    return store


def write_records(store: Store, path: Path) -> None:
    """Write a store as a log (`.tsv`), a count file (`.npz`) or a table (`.parquet`), or raise InputError for another
    ending."""
    writers = {".tsv": write_log, ".npz": write_counts, ".parquet": write_flat}
    if path.suffix not in writers:
        raise InputError(f"-o must end in .tsv (a log), .npz (a count file) or .parquet (a table), got {path}")
    writers[path.suffix](store, path)


def write_flat(store: Store, path: Path) -> None:
    """Write the records of any kind of store as one parquet file for pandas, polars or DuckDB, a row for each record.

    The columns are those of `Store.to_arrow`, and the votes as stored.

    Raises:
        StoreError: there are no records.
    """
    if not store.num_records:
        raise StoreError(f"{store.folder} has no records to write")
    table = store.to_arrow().append_column(TALLIES, store.records.column(TALLIES))
    make_folder(path.parent)
    write_whole(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))


def name_inputs(texts: Sequence[str]) -> list[Named]:
    """Return inputs `PATH` or `METHOD=PATH` with names: the ends of the paths, without the endings of logs if possible;
    of a method with one path, the method.

    >>> [one.name for one in name_inputs(["a/noise_0.25/sigma_0.25.tsv", "a/noise_0.50/sigma_0.50.tsv"])]
    ['sigma_0.25', 'sigma_0.50']
    >>> [one.name for one in name_inputs(["ours=a/s.tsv", "ours=b/s.tsv", "theirs=c/s.tsv"])]
    ['ours a/s', 'ours b/s', 'theirs']
    >>> [one.name for one in name_inputs(["run", "run.tsv", "run.npz"])]
    ['run', 'run.tsv', 'run.npz']
    """
    split: list[tuple[str, Place]] = []
    for text in texts:
        group, equals, path = text.partition("=")
        has_group = equals and group and "/" not in group and not Path(text).exists()
        split.append((group, place(path)) if has_group else ("", place(text)))
    whole = [path.absolute() for _, path in split]
    short = [path.parent / name_of(path) for path in whole]
    meant: dict[Place, set[Place]] = {}
    for path, end in zip(whole, short, strict=True):
        meant.setdefault(end, set()).add(path)
    names = distinct_names([path if len(meant[end]) > 1 else end for path, end in zip(whole, short, strict=True)])
    groups = Counter(group for group, _ in split)
    return [Named(path, name if not group else group if groups[group] == 1 and group not in names
                  else f"{group} {name}", group)
            for (group, path), name in zip(split, names, strict=True)]
