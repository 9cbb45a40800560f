"""What an `attack` store says, as text and as plain numbers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from smoothcert.checks import check_known, one_line
from smoothcert.report.listings import csv_lines, laid_out
from smoothcert.report.tables import FORMATS, aligned
from smoothcert.results.attacked import Attack
from smoothcert.results.attacks import (
    Beside,
    Outcome,
    Violations,
    alpha_of,
    axis_of,
    beside,
    norm_of,
    outcomes,
    violations,
)
from smoothcert.results.figures import percent
from smoothcert.store.store import Store


def attack_summary(store: Store, certified: Store | None = None) -> dict[str, Any]:
    """The store in plain numbers, for programs."""
    told = store.identity["attack"]
    summary = {
        "store": str(store.folder), "images": store.identity["images"]["count"], "complete": store.complete,
        "sigma": store.identity["noise"]["sigma"], "alpha": alpha_of(store), "attack": told["name"],
        "options": told["options"], "target": told["target"], "sizes": axis_of(store),
        "outcomes": [asdict(outcome) for outcome in outcomes(store)], "notes": list(Attack(store, "").remarks),
    }
    if certified is not None:
        rows = [] if axis_of(store) == "times" else beside(store, certified)
        summary["certified"] = {"store": str(certified.folder), "rows": [asdict(row) for row in rows],
                                "violations": asdict(violations(store, certified))}
    return summary


def attack_text(store: Store, certified: Store | None = None, name: str = "") -> str:
    """The same for people; `certified` is the store that gave the radii, or one over the same images."""
    parts = [_facts(store, name), aligned(_rows(store)), _legend(store)]
    if certified is not None:
        parts += [] if axis_of(store) == "times" else ["", _beside_text(store, certified)]
        parts.append(violations_text(violations(store, certified)))
    return "\n".join(parts)


def render_attacks(attacks: Sequence[Attack], style: str) -> str:
    """Attack stores in a format of `table`: each as a table of its own, but in CSV."""
    check_known("format", style, FORMATS)
    if style == "csv":
        return csv_lines([{"run": one.name, "sizes": axis_of(one.store), **asdict(outcome)}
                          for one in attacks for outcome in outcomes(one.store)])
    if style == "text":
        return "\n\n".join(attack_text(one.store, name=one.name) for one in attacks)
    return "\n\n".join(laid_out(_facts(one.store, one.name).splitlines(), _rows(one.store), style, _legend(one.store))
                       for one in attacks)


def _rows(store: Store) -> list[list[str]]:
    """The outcomes in cells, under their head."""
    found = outcomes(store)
    is_targeted, in_linf = found[0].reached is not None, norm_of(store) == "linf"
    head = [axis_of(store), "m", "T", "n", "images", "accuracy", "changed", *(["reached"] if is_targeted else []),
            "abstained", "mean l2", *(["mean linf"] if in_linf else [])]
    return [head, *([*_setting_cells(o), str(o.images), percent(o.accuracy), percent(o.changed),
                     *([percent(o.reached or 0.0)] if is_targeted else []), percent(o.abstained), f"{o.l2:.4g}",
                     *([f"{o.linf:.4g}"] if in_linf else [])] for o in found)]


def _setting_cells(row: Outcome | Beside) -> list[str]:
    clean = row.size == 0
    return [f"{row.size:g}", "-" if clean else str(row.m), "-" if clean else str(row.steps), str(row.n)]


def _facts(store: Store, name: str) -> str:
    told, identity = store.identity["attack"], store.identity
    options = "".join(f", {name} {value}" for name, value in told["options"].items() if value is not None)
    wanted = "" if told["target"] is None else f", towards class {told['target']}"
    unfinished = "" if store.complete else "  (UNFINISHED: the run has attacks left)"
    alpha = alpha_of(store)
    answered = "answers by mean softmax" if alpha is None else f"alpha {alpha:g}"
    return (f"{one_line(name or store.folder.name)}: {identity['images']['count']} images, "
            f"sigma {identity['noise']['sigma']:g}, {answered}{unfinished}\n"
            + one_line(f"attack {told['name']}{options}{wanted}"))


def _legend(store: Store) -> str:
    unit = "multiples of each image's certified radius" if axis_of(store) == "times" else "bounds on the perturbation"
    notes = "".join(f"note: {note}\n" for note in Attack(store, "").remarks)
    several = " Each n is judged at alpha by itself." if isinstance(store.identity["procedure"]["n"], list) else ""
    abstentions = "" if alpha_of(store) is None else " An abstention is wrong, and no change."
    return (f"{notes}Percent, rounded down; {axis_of(store)} = {unit}; m 0 = the base classifier attacked."
            f"{abstentions}{several}\nThis is what the attack found, and no guarantee: a stronger one may find more.")


def _beside_text(store: Store, certified: Store) -> str:
    rows = beside(store, certified)
    head = ["eps", "m", "T", "n", "certified", "empirical", "lost to answers", "to abstention"]
    cells = [[*_setting_cells(row), percent(row.certified), percent(row.empirical), percent(row.lost_answers),
              percent(row.lost_abstentions)] for row in rows]
    lines = [f"Beside the certificates of {certified.folder.name}, same images (lost = certified and right, but then):",
             aligned([head, *cells])]
    low = [row for row in rows if row.empirical < row.certified]
    if quiet := [row for row in low if not row.lost_answers]:
        lines.append(f"Empirical below certified at {_places(quiet)}: by abstentions alone; give predict a larger n.")
    if wrong := [row for row in low if row.lost_answers]:
        lines.append(f"WARNING: empirical below certified at {_places(wrong)}, with other answers than the certified "
                     f"ones.")
    return "\n".join(lines)


def violations_text(found: Violations) -> str:
    """One line about attacks inside certified radii."""
    words = (f"Inside certified radii: {found.changed} of {found.pairs} attacked images ({found.images_changed} of "
             f"{found.images} images) changed the answer; at most {found.expected:.3g} expected from alpha")
    if found.changed and found.chance < 0.01:
        return f"{words}.\nWARNING: so many have probability below {found.chance:.2g}: something is wrong."
    return f"{words}."


def _places(rows: list[Beside]) -> str:
    return "; ".join(dict.fromkeys(f"eps {row.size:g} (n {row.n})" for row in rows))
