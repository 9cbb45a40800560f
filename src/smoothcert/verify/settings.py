"""Checks that records of attack and distributional stores are of the settings that their run went through."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.runs import attack_settings, distributional_settings
from smoothcert.store.identity import Identity
from smoothcert.verify.files import Readable, StoreCheck
from smoothcert.verify.records import RecordPart, RecordTerms, parts


def check_settings(readable: Readable, terms: RecordTerms) -> StoreCheck | None:
    """Check the setting of every record against the run's. Returns None for kinds of store that have none.

    Raises:
        StoreError: the identity does not say which settings there were.
    """
    identity = readable.identity
    if identity.kind not in _KINDS or identity.counted_from is not None:
        return None
    list_settings, find_contradiction = _KINDS[identity.kind]
    try:
        expected = list_settings(identity)
        if len(expected) != terms.per_image:
            raise ValueError(f"{len(expected)} settings, {terms.per_image} records an image")
        problems = [problem for part in parts(readable) for problem in _find_others(part, expected)]
        problems += [f"{part.name(row)}: {words}" for part in parts(readable)
                     for row, record in enumerate(part.table.drop_columns(["tallies"]).to_pylist())
                     if (words := find_contradiction(record, identity))]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{readable.folder} does not say its settings ({type(error).__name__}: {error})") from None
    return StoreCheck("settings", f"{len(expected)} for each image", tuple(problems))


def _attack_settings(identity: Identity) -> list[dict[str, Any]]:
    """Return what each record of an image says of its attack."""
    attack = identity.attack
    size = "eps" if attack.eps is not None else "times"
    return [{size: setting.size, "m": setting.m, "steps": setting.steps}
            for setting in attack_settings.list_settings(attack.eps or attack.times or [], attack.m, attack.steps)]


def _ascent_settings(identity: Identity) -> list[dict[str, Any]]:
    """Return what each record of an image says of its ascent."""
    run = identity.distributional
    gammas = sorted({*run.gamma, *run.gamma_adv})
    return [{"form": setting.form, "gamma": setting.gamma}
            for setting in distributional_settings.list_settings(gammas, run.gamma if run.eps_equivalent else ())]


def _find_others(part: RecordPart, expected: list[dict[str, Any]]) -> Iterator[str]:
    columns = {name: part.table.column(name).to_pylist() for name in expected[0]}
    for row, position in enumerate(part.positions.tolist()):
        for name, value in expected[position % len(expected)].items():
            if columns[name][row] != value:
                yield f"{part.name(row)}: {name} is {columns[name][row]}, and the run has {value} there"


def _contradiction_in_attack(record: dict[str, Any], identity: Identity) -> str | None:
    attack, sizes = identity.attack, [record[name] for name in ("eps", "l2", "linf")]
    if not _sizes(sizes):
        return "eps, l2 and linf are no sizes"
    if record["steps"] == 0 and any(sizes):
        return "no attack, and yet the image was moved"
    attacked = attack.target if attack.target is not None else record["label"]
    if attack.eps is not None and record["attacked"] != attacked:
        return f"class {record['attacked']} was attacked, and the run attacks {attacked} here"
    if identity.procedure.method == "softmax" and (record["p_value"] is not None or record["prediction"] < 0):
        return "an answer by softmax has a class and no p-value"
    return None


def _contradiction_in_bound(record: dict[str, Any], identity: Identity) -> str | None:
    ceiling, unmoved = identity.distributional.ceiling, record["gamma"] is None
    if not _sizes([record[name] for name in ("loss", "cost", "slope", "mean", "variance", "steep")
                   if record[name] is not None]) or record["loss"] is None:
        return "its loss, cost or moments are no sizes"
    if record["mean"] is not None and record["mean"] > 1:
        return f"the mean {record['mean']} of losses in units of their ceiling is above 1"
    if unmoved and record["mean"] is not None and record["loss"] != ceiling * record["mean"]:
        return f"loss is {record['loss']}, and ceiling times mean {ceiling * record['mean']}"
    if unmoved and (record["cost"] or record["prediction"] >= 0):
        return "nothing was moved and nothing predicted, and yet there is a cost or a class"
    return None


def _sizes(values: list[float]) -> bool:
    return all(value is not None and np.isfinite(value) and value >= 0 for value in values)


_KINDS = {"attack": (_attack_settings, _contradiction_in_attack),
          "distributional": (_ascent_settings, _contradiction_in_bound)}
"""Of kinds of store that have settings: the settings of an image's records, and what contradicts itself in a record."""
