"""The certificate of the 0-1 loss, from the counts of a certify store alone: no model, no torch."""

from dataclasses import replace

from smoothcert.errors import InputError, StoreError
from smoothcert.io.paths import place
from smoothcert.runs.distributional_options import DistributionalConfig
from smoothcert.store.recertify import errors_in
from smoothcert.store.records import VALUES, Record
from smoothcert.store.store import Store, read_store, write_store


def read_counted(config: DistributionalConfig) -> Store:
    """Read the store that the options name in place of a model; with `out`, keep its counts as a store of their own.

    Raises:
        StoreError: a store of another kind, or one whose counts do not serve. InputError: `out` with a distributional
            store.
    """
    store = read_store(place(config.model))
    if store.kind == "distributional":
        if config.out is not None:
            raise InputError(f"{store.folder} is a distributional store already: leave out, and it is read")
        return store
    errors_in(store)
    if config.out is None:
        return store
    if not store.complete:
        raise StoreError(f"{store.folder} is not complete: finish its run first, or leave out -o to look at what is "
                         f"there")
    procedure = store.identity.procedure
    alpha = config.alpha if "alpha" in config.model_fields_set else procedure.alpha
    identity = store.identity.replace(
        kind="distributional", counted_from=store.identity.digest, procedure={**procedure.raw, "alpha": alpha},
        distributional={"loss": "0-1", "ceiling": 1.0, "gamma": [], "gamma_adv": [], "search": None})
    write_store(config.out, identity, {**store.provenance.raw, "rho": list(config.rho)},
                [replace(Record.from_row(row), values=dict.fromkeys(VALUES["distributional"]))
                 for row in store.records.to_pylist()])
    return read_store(config.out)
