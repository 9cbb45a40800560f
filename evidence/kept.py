"""Figures of finished recipes, kept compactly in docs/results/reproduced/RECIPE-SCALE.json, and how they are told."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcert.io.files import write_json
from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import Recipe, recipe_names
from smoothcert.results.paired import Difference

LINE = ("step", "folder", "setting", "measure", "images", "seconds", "acr", "abstained")
FIGURE = ("at", "obtained", "low", "high", "out_of_reach")


def keep(folder: Path, into: Path) -> None:
    """Keep the figures of every `reproduced.json` under `folder`, but those of scale smoke, over those of the same runs
    that are kept already."""
    for path in sorted(folder.rglob("reproduced.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["scale"] == "smoke" or told["recipe"] not in recipe_names():
            continue
        target = into / f"{told['recipe']}-{told['scale']}.json"
        before = json.loads(target.read_text(encoding="utf-8")) if target.is_file() else []
        lines = [{**{name: line[name] for name in LINE}, "figures": [
            [figure[name] for name in FIGURE] for figure in line["figures"]]} for line in told["lines"]]
        into.mkdir(parents=True, exist_ok=True)
        write_json(target, list({(line["folder"], line["setting"]): line for line in [*before, *lines]}.values()))


@dataclass(frozen=True)
class Obtained:
    """What one line of a kept run found.

    Attributes:
        single: "ACR" and "abstained" where they were measured, as they are printed.
        figures: by radius, eps or multiple of the radius, as they are printed.
        shares: the same as fractions, where the samples could have proved the radius.
    """

    scale: str
    rows: tuple[str, ...]
    step: str
    setting: str
    images: int
    single: dict[str, str]
    figures: dict[float, str]
    shares: dict[float, float]


def obtained(recipe: Recipe, kept: Path) -> Iterator[Obtained]:
    """The kept lines of a recipe that its steps still run, those of scale paper first."""
    for scale in reversed(recipe.scales):
        path = kept / f"{recipe.name}-{scale}.json"
        if not path.is_file():
            continue
        tasks = plan(recipe, scale).tasks
        for line in json.loads(path.read_text(encoding="utf-8")):
            rows = tuple(row for row, found in tasks.items() if line["folder"] in {task.folder for task in found})
            if rows:
                told = [dict(zip(FIGURE, figure, strict=True)) for figure in line["figures"]]
                single = {"ACR": line["acr"] is not None and f"{math.floor(round(1000 * line['acr'], 6)) / 1000:.3f}",
                          "abstained": line["abstained"] is not None and percent(line["abstained"])}
                yield Obtained(scale, rows, line["step"], line["setting"], line["images"],
                               {name: value for name, value in single.items() if value},
                               {one["at"]: _cell(one, line["measure"]) for one in told},
                               {one["at"]: one["obtained"] for one in told if not one["out_of_reach"]})


def printed(recipe: Recipe) -> dict[tuple[str, str], dict[Any, float]]:
    """The figures of a recipe's paper by (row, step): by radius, eps or multiple of the radius, "ACR", "abstained"."""
    found: dict[tuple[str, str], dict[Any, float]] = {}
    for row in recipe.rows:
        for step, told in row.expected.items():
            single = {"ACR": told.acr, "abstained": told.abstained}
            found[row.name, step] = {**told.accuracy, **told.changed,
                                     **{name: value for name, value in single.items() if value is not None}}
    return {**found, **{(best.name, best.step): dict(best.accuracy) for best in recipe.best}}


def _cell(figure: Mapping[str, Any], measure: str) -> str:
    """An obtained figure with its interval; a bound on a loss is in its own units."""
    if measure == "bound":
        return f"{math.ceil(1000 * figure['obtained']) / 1000:g}"
    if figure["out_of_reach"]:
        return "-"
    high = math.ceil(round(1000 * figure["high"], 6)) / 10
    return f"{percent_down(figure['obtained'])} [{percent_down(figure['low'])}, {high:.1f}]"


def percent(value: float) -> str:
    return f"{100 * value:.4g}"


def in_points(found: Difference) -> str:
    """A paired difference with its interval, in points; a dash where neither run could have proved the radius."""
    if all(found.out_of_reach):
        return "-"
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def percent_down(value: float) -> str:
    return f"{math.floor(round(1000 * value, 6)) / 10:.1f}"
