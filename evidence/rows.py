"""Rows of recipes that take hours, at scale cpu: they are run when they are asked for, kept from run to run, and shown.

`ROWS=RECIPE/ROW,...` names those that `make evidence PART=...` runs first, or goes on with.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from workplace import CLI, data_dir

from smoothcert.classifiers.folder import read_card
from smoothcert.recipes.comparison import compare_recipe, render_markdown
from smoothcert.recipes.plan import RecipePlan, Task
from smoothcert.results.cost import Pilot
from smoothcert.store.store import read_store


def run_asked_rows(out: Path, recipes: str) -> None:
    """Run the rows that `ROWS` names of the recipes whose names begin with `recipes`."""
    for name in os.environ.get("ROWS", "").split(","):
        recipe, _, row = name.partition("/")
        if row and recipe.startswith(recipes):
            subprocess.run([CLI, "reproduce", recipe, "--scale", "cpu", "--row", row, "-o", str(out), "--data-dir",
                            str(data_dir())], check=True, stdout=subprocess.DEVNULL)


def tables(planned: RecipePlan, out: Path) -> Iterator[str]:
    """The tables of a recipe's finished rows, if there are any, as a section of a page."""
    comparison = compare_recipe(planned, out)
    if comparison.lines:
        yield render_markdown(comparison).replace("\n## ", "\n### ").replace("# ", "## ", 1)


def unfinished(planned: RecipePlan, out: Path) -> Iterator[str]:
    """The rows of a recipe that are not finished, if there are any."""
    left = [row for row, tasks in planned.tasks.items() if not all(task.is_done(out) for task in tasks)]
    if left:
        yield f"Not finished of `{planned.recipe.name}`: {', '.join(left)}."


def speed(plans: list[RecipePlan], out: Path) -> Iterator[str]:
    """What every finished training and certification took."""
    rows: dict[str, str] = {}
    for planned in plans:
        for row, tasks in planned.tasks.items():
            for task in tasks:
                if task.is_done(out) and task.folder not in rows:
                    rows[task.folder] = _time(f"{planned.recipe.name}, {row} | {task.step}", task, out)
    if rows:
        yield "## Speed"
        yield ("Wall-clock seconds of training, and seconds of one process for certification, which `--workers` share. "
               "The machine did other work beside it.")
        told = [line for line in rows.values() if line]
        yield "\n".join(["| recipe, row | step | seconds | of what |", "|---|---|---|---|", *told])


def _time(named: str, task: Task, out: Path) -> str:
    folder = task.path(out)
    if task.verb == "train":
        card = read_card(folder)
        return (f"| {named} | {training_seconds(folder):,.0f} | {card.epochs_done} epochs, autocast "
                f"{card.identity['settings']['autocast']}, {card.identity['processes']} process(es) |")
    if task.verb == "certify":
        pilot = Pilot.of(read_store(folder))
        samples, seconds = pilot.samples.sum(), pilot.seconds.sum()
        return (f"| {named} | {seconds:,.0f} | {len(pilot.samples):,} images, {pilot.samples.mean():,.0f} samples an "
                f"image, {1000 * seconds / samples:.2f} ms a sample |")
    return ""


def training_seconds(folder: Path) -> float:
    """Seconds of all epochs."""
    return sum(json.loads(line)["seconds"] for line in (folder / "metrics.jsonl").read_text().splitlines())
