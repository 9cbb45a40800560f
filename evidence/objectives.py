"""All objectives on MNIST, equal epochs, by the recipe `mnist-objectives`; finished rows are kept from run to run.

All rows, or those that the environment variable ROWS names: `ROWS=gaussian,adre make evidence PART=objectives`.
"""

import os
import subprocess
from pathlib import Path

from kept import in_points
from workplace import CLI, WORK, data_dir

from smoothcert.recipes.comparison import compare_recipe
from smoothcert.recipes.plan import RecipePlan, plan
from smoothcert.recipes.recipe import read_recipe
from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

RADII = (0.5, 1.0, 1.5)
MEANING = ("`above gaussian`: difference in ACR on the same images, with the standard error of its mean (an estimate); "
           "differences of certified accuracy in points, with their 95% paired intervals.")


def main() -> str:
    rows = os.environ["ROWS"].split(",") if os.environ.get("ROWS") else list(_planned().tasks)
    left = [row for row in _planned().tasks if row not in rows]
    return measure(rows) + (f"\nNot run: {', '.join(left)}.\n" if left else "")


def measure(rows: list[str], subject: str = "Objectives", note: str = "") -> str:
    """Run rows of the recipe, or go on with them, and return the page of them."""
    out, planned = WORK / "objectives", _planned()
    subprocess.run([CLI, "reproduce", "mnist-objectives", "--scale", "cpu", "-o", str(out), "--threads", "1", "--quiet",
                    "--row", ",".join(rows), "--data-dir", str(data_dir())], check=True, stdout=subprocess.DEVNULL)
    results = {row: certified(planned, row, out) for row in rows}
    seconds = {row: line.seconds for line in compare_recipe(planned, out).lines for row in line.rows}
    return page(results, seconds, subject, note)


def _planned() -> RecipePlan:
    return plan(read_recipe("mnist-objectives"), "cpu")


def certified(planned: RecipePlan, row: str, out: Path) -> Result:
    """What the row's certification found."""
    task = next(task for task in planned.tasks[row] if task.verb == "certify")
    return Result.of(read_store(task.path(out)))


def page(results: dict[str, Result], seconds: dict[str, float], subject: str, note: str) -> str:
    """The table, each row also as its difference from `gaussian` on the same images."""
    lines = [f"# {subject} on MNIST: LeNet, sigma 0.5, 6 epochs on the full training set for all\n",
             f"{machine_line()}. Seconds are the clock's, with whatever else ran.{note}\n",
             "`smoothcert reproduce mnist-objectives --scale cpu`: 200 test images, n = 10,000, alpha = .001, method "
             f"cohen. {MEANING}\n"]
    return "\n".join([*lines, *table(results, seconds)]) + "\n"


def table(results: dict[str, Result], seconds: dict[str, float]) -> list[str]:
    """The lines of a table of rows, the first of which is `gaussian`."""
    base = results["gaussian"]
    lines = ["| objective | training, s | ACR | at .5 | at 1 | at 1.5 | ACR above gaussian | at .5 | at 1 | at 1.5 |",
             "|---" * 10 + "|"]
    for row, result in results.items():
        shares = [f"{100 * a:.1f}" for a in result.at(RADII, 0.05).accuracy]
        cells = [row, f"{seconds[row]:.0f}", f"{result.acr:.3f}", *shares]
        if row != "gaussian":
            found = compare(result, base, RADII, 0.05)
            above, error = result.acr - base.acr, found.acr_error or 0.0
            cells.append(f"{above:+.3f} ({error:.3f})")
            cells += map(in_points, found.differences)
        lines.append("| " + " | ".join([*cells, *[""] * (10 - len(cells))]) + " |")
    return lines
