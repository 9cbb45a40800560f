"""Whether there is anything to report on."""

from smoothcert.errors import StoreError
from smoothcert.store.store import Store


def check_records(store: Store) -> None:
    """Raise StoreError unless a store, log or count file has a record; what is being filled may have one later."""
    if not store.num_records:
        raise StoreError(f"{store.folder} has no records: there is nothing to show" if is_foreign(store) else
                         f"{store.folder} has no records yet: let its run finish some images")


def is_foreign(store: Store) -> bool:
    """Whether it was read from a log or a count file, which are as they are, and say little of how they were made."""
    return "log" in store.provenance or "counts" in store.provenance
