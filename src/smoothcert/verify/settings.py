"""Whether records of attack and distributional stores are of the settings that their run went through."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from smoothcert.errors import StoreError
from smoothcert.runs import attack_settings
from smoothcert.runs import distributional_settings as bounding_settings
from smoothcert.runs.attack_options import AttackConfig
from smoothcert.verify.files import Check, Readable
from smoothcert.verify.records import Part, Terms, parts


def check_settings(readable: Readable, terms: Terms) -> Check | None:
    """What a record says of its setting against the run's; None for kinds of store that have none.

    Raises:
        StoreError: the identity does not say which settings there were.
    """
    identity = readable.identity
    kind = identity["kind"]
    if kind not in ("attack", "distributional") or "counted_from" in identity:
        return None
    try:
        expected = _attacks(identity) if kind == "attack" else _ascents(identity)
        if len(expected) != terms.per_image:
            raise ValueError(f"{len(expected)} settings, {terms.per_image} records an image")
        problems = [problem for part in parts(readable) for problem in _others(part, expected)]
        wrong = _wrong_attack if kind == "attack" else _wrong_bound
        problems += [problem for part in parts(readable) for problem in _contradictions(part, identity, wrong)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{readable.folder} does not say its settings ({type(error).__name__}: {error})") from None
    return Check("settings", f"{len(expected)} for each image", tuple(problems))


def _attacks(identity: dict[str, Any]) -> list[dict[str, Any]]:
    """What each record of an image says of its attack."""
    told = identity["attack"]
    sizes = {name: tuple(told[name]) for name in ("eps", "times") if name in told}
    config = AttackConfig.model_construct(**{"eps": None, **sizes}, m=tuple(told["m"]), steps=tuple(told["steps"]))
    return [{("eps" if "eps" in told else "times"): setting.size, "m": setting.m, "steps": setting.steps}
            for setting in attack_settings.settings_of(config)]


def _ascents(identity: dict[str, Any]) -> list[dict[str, Any]]:
    """What each record of an image says of its ascent."""
    told = identity["distributional"]
    gammas = sorted({*told["gamma"], *told["gamma_adv"]})
    equivalents = told["gamma"] if told.get("eps_equivalent") else ()
    return [{"form": setting.form, "gamma": setting.gamma}
            for setting in bounding_settings.settings_of(gammas, equivalents)]


def _others(part: Part, expected: list[dict[str, Any]]) -> Iterator[str]:
    columns = {name: part.table.column(name).to_pylist() for name in expected[0]}
    for row, position in enumerate(part.positions.tolist()):
        for name, value in expected[position % len(expected)].items():
            if columns[name][row] != value:
                yield f"{part.named(row)}: {name} is {columns[name][row]}, and the run has {value} there"


def _contradictions(part: Part, identity: dict[str, Any], wrong: Any) -> Iterator[str]:
    for row, record in enumerate(part.table.drop_columns(["tallies"]).to_pylist()):
        if words := wrong(record, identity):
            yield f"{part.named(row)}: {words}"


def _wrong_attack(record: dict[str, Any], identity: dict[str, Any]) -> str | None:
    told, sizes = identity["attack"], [record[name] for name in ("eps", "l2", "linf")]
    if not _sizes(sizes):
        return "eps, l2 and linf are no sizes"
    if record["steps"] == 0 and any(sizes):
        return "no attack, and yet the image was moved"
    attacked = told["target"] if told["target"] is not None else record["label"]
    if "eps" in told and record["attacked"] != attacked:
        return f"class {record['attacked']} was attacked, and the run attacks {attacked} here"
    if identity["procedure"]["method"] == "softmax" and (record["p_value"] is not None or record["prediction"] < 0):
        return "an answer by softmax has a class and no p-value"
    return None


def _wrong_bound(record: dict[str, Any], identity: dict[str, Any]) -> str | None:
    ceiling, unmoved = identity["distributional"]["ceiling"], record["gamma"] is None
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
