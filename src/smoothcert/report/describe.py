"""What something on disk is, in plain facts."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smoothcert.checks import one_line
from smoothcert.classifiers.card import is_model_dir, read_card
from smoothcert.errors import FileError
from smoothcert.interop import open_records
from smoothcert.io.paths import Place
from smoothcert.results.attacked import Attack
from smoothcert.results.attacks import Outcome, axis_of, outcomes
from smoothcert.results.certified import Result
from smoothcert.results.distributional import Robustness
from smoothcert.results.predictions import Predicted
from smoothcert.results.present import is_foreign
from smoothcert.store.manifest import is_store
from smoothcert.store.store import Store


def described(folder: Place, radius_column: str | None = None) -> dict[str, Any]:
    """The facts of a store, a log, a count file or a model directory; a store is checked against its hashes on the way.

    Args:
        radius_column: the column of a log that holds the radii; see `read_log`.
    Raises:
        FileError: it is none of them.
    """
    if is_store(folder) or folder.is_file():
        return _store(folder, radius_column)
    if isinstance(folder, Path) and is_model_dir(folder):
        return {"path": str(folder), "is": "model directory", **asdict(read_card(folder))}
    if not folder.exists():
        raise FileError(f"there is no {folder}")
    raise FileError(f"{folder} is neither a store (manifest.json) nor a model directory (model.json)")


def outline(facts: dict[str, Any], indent: int = 0) -> str:
    """Facts as indented lines."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [one_line(f"{' ' * indent}{name}:"), outline(value, indent + 2)]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(one_line(f"{' ' * indent}{name}: {shown}"))
    return "\n".join(lines)


def _store(folder: Place, radius_column: str | None) -> dict[str, Any]:
    store = open_records(folder, radius_column=radius_column)
    form = "log" if "log" in store.provenance else "count file" if folder.is_file() else "store"
    facts: dict[str, Any] = {
        "path": str(folder), "is": f"{store.kind} {form}",
        "records": f"{store.num_records} of {store.identity.record_count}", "complete": store.complete,
    }
    remarks: Sequence[str] = ()
    if store.num_records and store.kind == "attack":
        facts["accuracy"] = {_setting(store, o): o.accuracy for o in outcomes(store)}
        remarks = Attack(store, "").remarks
    elif store.kind == "distributional" and store.complete:
        robust = Robustness.of(store)
        facts["figures"] = {f"rho {rho:g}": robust.at(rho) for rho in robust.rho}
        remarks = robust.remarks
    elif store.num_records and store.kind != "distributional":
        if not is_foreign(store):
            facts["off_grid_images"] = int(store.column("off_grid").sum())
        if store.kind == "certify":
            result = Result.of(store)
            facts |= {"acr": result.acr, "abstained": int(result.abstained.sum())}
        else:
            result = Predicted.of(store)
            facts |= {"accuracy": float(result.correct.mean()), "abstained": float(result.abstained.mean())}
        remarks = result.remarks
    facts |= {"notes": list(remarks)} if remarks else {}
    return facts | (_told_by_log(store) if form == "log" else
                    {"identity": store.identity, "provenance": store.provenance})


def _told_by_log(store: Store) -> dict[str, Any]:
    """What a log and its path say, None where they do not; and what was noticed in it."""
    sigma, procedure = store.identity["noise"]["sigma"], store.identity["procedure"]
    norm = {"norm": store.identity["norm"]} if "norm" in store.identity else {}
    return {"sigma": None if math.isnan(sigma) else sigma, "n": procedure["n"] or procedure["n_max"],
            **{name: procedure[name] for name in ("alpha", "method")}, **norm, "notes": store.provenance["notes"]}


def _setting(store: Store, outcome: Outcome) -> str:
    attacked = f"{axis_of(store)} {outcome.size:g}, m {outcome.m}, T {outcome.steps}" if outcome.size else "no attack"
    return f"{attacked}, n {outcome.n}"
