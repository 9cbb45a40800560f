"""The stores of a bundle: opened, finished, each with a name and a folder of its own in the bundle."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smoothcert.errors import InputError, StoreError
from smoothcert.interop import Named
from smoothcert.io.paths import Place
from smoothcert.report.html.facts import SAYS_NOT
from smoothcert.report.html.outputs import WORDS
from smoothcert.results.base import StoreResult
from smoothcert.results.gather import open_each, read_result
from smoothcert.store.manifest import is_store
from smoothcert.store.store import Store, read_store

FOLDER = "stores"
_LONGEST = 60
_INSTEAD = "`smoothcert recertify FILE.npz -o STORE` makes one of a count file, and a log has no votes"


@dataclass(frozen=True)
class BundledStore:
    """A store of a bundle.

    Attributes:
        source: its folder. place: its folder in the bundle, which is all that files of the bundle say of it.
        store, result: the store and its figures, read as if it lay there.
    """

    source: Place
    place: str
    store: Store
    result: StoreResult

    @property
    def name(self) -> str:
        """The name by which tables call it."""
        return self.result.name


def open_stores(texts: Sequence[str]) -> list[BundledStore]:
    """Open every `STORE` or `METHOD=STORE`. Raises what `place_stores` raises, and FileError where there is none."""
    opened, _ = open_each(texts, lambda one: (one, _read(one)), strict=True)
    found = place_stores([(one.name, store) for one, store in opened])
    return [replace(bundled, result=bundled.result.in_group(one.group))
            for bundled, (one, _) in zip(found, opened, strict=True)]


def place_stores(named: Sequence[tuple[str, Store]]) -> list[BundledStore]:
    """Give each store a folder in the bundle.

    Raises:
        StoreError: a store that is not on disk, is not finished or has no records. InputError: one store twice.
    """
    found: list[BundledStore] = []
    taken: set[str] = set()
    for name, store in named:
        if not is_store(store.folder):
            raise StoreError(f"{store.folder} is not a store on disk, and a bundle is of stores, whose records can be "
                             f"verified: {_INSTEAD}; a store in memory is kept by its method `save`")
        if any(store.folder.resolve() == one.source.resolve() for one in found):
            raise InputError(f"{store.folder} is named twice: name each store once")
        store.check_complete()
        folder = f"{FOLDER}/{_name_folder(name, taken)}"
        shown = replace(store, folder=Path(folder))
        found.append(BundledStore(store.folder, folder, shown, read_result(shown, name)))
    return found


def list_limits(stores: Sequence[BundledStore]) -> list[str]:
    """Return sentences on what the figures of some stores do not say, each once."""
    return list(dict.fromkeys(line for one in stores for line in (
        WORDS[one.store.kind].says_not if one.store.kind in WORDS else SAYS_NOT)))


def _read(one: Named) -> Store:
    if isinstance(one.path, Path) and one.path.is_file():
        raise StoreError(f"{one.path} is a file, and a bundle is of stores, whose records can be verified: {_INSTEAD}")
    return read_store(one.path)


def _name_folder(name: str, taken: set[str]) -> str:
    """Return a name for a folder on any file system, and add it to those that are taken."""
    plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", name)[:_LONGEST].strip(".-_=") or "store"
    number, free = 1, plain
    while free.lower() in taken:
        number += 1
        free = f"{plain}-{number}"
    taken.add(free.lower())
    return free
