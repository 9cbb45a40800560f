"""Whatever holds records, opened by what it is: a store, a log, a count file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import InputError, StoreError
from smoothcert.interop.counts import read_counts, write_counts
from smoothcert.interop.flat import write_flat
from smoothcert.interop.logs import read_log, write_log
from smoothcert.io.paths import Place, place
from smoothcert.store.names import distinct_names, log_stem
from smoothcert.store.store import Store, read_store


@dataclass(frozen=True)
class Named:
    """Something to open, the name it goes by, and the method it is a run of ("" where none is told)."""

    path: Place
    name: str
    group: str


def open_records(path: Place, alpha: float | None = None, radius_column: str | None = None) -> Store:
    """A store (a folder), a count file (`.npz`) or a log (any other file), as a store.

    Args:
        alpha: failure probability of each answer of a log that does not say it, or of a count file (else its own).
        radius_column: the column of a log that holds the radii; see `read_log`.
    Raises:
        FileError, StoreError: nothing is there, or it is none of them, or it is damaged.
    """
    if isinstance(path, Path) and path.is_file():
        return read_counts(path, alpha) if path.suffix == ".npz" else read_log(path, alpha, radius_column)
    return read_store(path)


def open_votes(path: Place) -> Store:
    """`open_records` for what holds votes, or StoreError for a log, which holds answers only."""
    store = open_records(path)
    if "log" in store.provenance:
        raise StoreError(f"{path} is a log: it holds no votes, only answers, so nothing can be computed anew from it")
    return store


def write_records(store: Store, path: Path) -> None:
    """Write a store as a log (`.tsv`), a count file (`.npz`) or a table (`.parquet`), or raise InputError for another
    ending."""
    writers = {".tsv": write_log, ".npz": write_counts, ".parquet": write_flat}
    if path.suffix not in writers:
        raise InputError(f"-o must end in .tsv (a log), .npz (a count file) or .parquet (a table), got {path}")
    writers[path.suffix](store, path)


def named(texts: Sequence[str]) -> list[Named]:
    """Inputs `PATH` or `METHOD=PATH`, named by the ends of the paths, without those of logs where that is enough.

    >>> [one.name for one in named(["a/noise_0.25/sigma_0.25.tsv", "a/noise_0.50/sigma_0.50.tsv"])]
    ['sigma_0.25', 'sigma_0.50']
    >>> [one.name for one in named(["ours=a/s.tsv", "theirs=b/s.tsv"])]
    ['ours a/s', 'theirs b/s']
    >>> [one.name for one in named(["run", "run.tsv", "run.npz"])]
    ['run', 'run.tsv', 'run.npz']
    """
    split = [_split(text) for text in texts]
    whole = [path.absolute() for _, path in split]
    short = [path.parent / _last(path) for path in whole]
    meant: dict[Place, set[Place]] = {}
    for path, end in zip(whole, short, strict=True):
        meant.setdefault(end, set()).add(path)
    names = distinct_names([path if len(meant[end]) > 1 else end for path, end in zip(whole, short, strict=True)])
    return [Named(path, f"{group} {name}" if group else name, group)
            for (group, path), name in zip(split, names, strict=True)]


def _split(text: str) -> tuple[str, Place]:
    group, equals, path = text.partition("=")
    if equals and group and "/" not in group and not Path(text).exists():
        return group, place(path)
    return "", place(text)


def _last(path: Place) -> str:
    """The name of a folder, or of a file without its ending."""
    return log_stem(path.name).removesuffix(".npz")
