"""CIFAR-10 with a fast network, by the recipes `cifar10-fast-*`: hours, so finished rows are kept from run to run.

`make evidence PART=cifar10` shows every row that is finished and runs none but those that `ROWS` names (see `rows.py`).
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from kept import in_points
from reckoning import SETS, rates
from rows import run_asked_rows, speed, tables, training_seconds, unfinished
from workplace import CLI, WORK, data_dir

from smoothcert.recipes.plan import RecipePlan, plan
from smoothcert.recipes.recipe import read_recipe, recipe_names
from smoothcert.results.certified import Result
from smoothcert.results.compare import compare
from smoothcert.results.cost import Pilot
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

OUT = WORK / "cifar10"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
GAUSSIAN, ONE_RADIUS = "cifar10-fast-gaussian", "sigma-0.25-at-0.5"
CORES = 2
DATA = ("The CIFAR-10 images here are JPEG copies of quality 75 of the original ones; the published figures are of the "
        "originals.")


def main() -> str:
    run_asked_rows(OUT, "cifar10-fast-")
    names = sorted(filter(lambda name: name.startswith("cifar10-fast-"), recipe_names()), key=lambda n: n != GAUSSIAN)
    plans = [plan(read_recipe(name), "cpu") for name in names]
    blocks = ["# CIFAR-10 on two cores", f"{machine_line()}. {DATA}",
              "Networks of these recipes are in [the zoo](zoo.md), with certificates of their own.", *speed(plans, OUT),
              *_from_nothing(plans[0])]
    for planned in plans:
        blocks += [*tables(planned, OUT), *_above_gaussian(planned), *unfinished(planned, OUT)]
    return "\n\n".join([*blocks, *_pictures(plans[0])]) + "\n"


def _from_nothing(gaussian: RecipePlan) -> Iterator[str]:
    """What training and certification at one radius take together, beside the published way."""
    tasks = {task.step: task for task in gaussian.tasks[ONE_RADIUS]}
    if not tasks["certified"].is_done(OUT):
        return
    training = training_seconds(tasks["model"].path(OUT)) / 60
    pilot = Pilot.of(read_store(tasks["certified"].path(OUT)))
    certifying, images = pilot.seconds.sum() / CORES / 60, len(pilot.samples)
    seconds = 1 / rates()["resnet110 reference"]
    published = [seconds * samples / CORES / 3600 for samples in (3 * 90 * SETS["cifar10"][0], images * 100_100)]
    yield "## From nothing to certified accuracy at one radius"
    yield (f"`smoothcert reproduce {GAUSSIAN} --scale cpu --row {ONE_RADIUS}`, which also makes the network of 8 bits, "
           f"trains for {training:.0f} minutes on {CORES} cores and certifies {images:,} images at radius 0.5 in "
           f"{certifying:.0f}: {training + certifying:.0f} together. The published way would be 90 epochs of "
           f"ResNet-110 and 100,100 samples an image. At the measured {1000 * seconds:.1f} ms a sample on one core, "
           f"and three times that a step of training, it is {published[0]:.0f} and {published[1]:.0f} hours on {CORES} "
           f"cores, reckoned: {60 * sum(published) / (training + certifying):.0f} times as long.")


def _above_gaussian(planned: RecipePlan) -> Iterator[str]:
    """By sigma, what the finished rows have above the row of Gaussian augmentation, on the same images."""
    done = {row: Result.of(read_store(tasks[-1].path(OUT))) for row, tasks in planned.tasks.items()
            if tasks[-1].verb == "certify" and tasks[-1].is_done(OUT)}
    for base in filter(lambda row: row.endswith("-gaussian"), done):
        sigma = base.removesuffix("gaussian")
        others = {row: result for row, result in done.items() if row.startswith(sigma) and row != base}
        if others:
            radii = planned.tasks[base][-1].options["radii"]
            lines = [f"| above {base}, points | {' | '.join(f'{radius:g}' for radius in radii)} |",
                     "|---" * (len(radii) + 1) + "|"]
            for row, result in others.items():
                found = compare(result, done[base], radii, 0.05).differences
                lines.append(f"| {row} | {' | '.join(map(in_points, found))} |")
            yield "\n".join(lines)
            yield ("Differences of certified accuracy on the same images, with 95 % intervals for new ones, each at "
                   "one radius chosen beforehand.")


def _pictures(gaussian: RecipePlan) -> Iterator[str]:
    """Our curves and the published ones in one plot, with one line for each network and sigma; and a gallery."""
    rows = {f"{float(row.removeprefix('sigma-')):.2f}": task.path(OUT) for row, (*_, task) in gaussian.tasks.items()
            if row != ONE_RADIUS and task.is_done(OUT)}
    published = Path(os.environ.get("SMOOTHCERT_LOGS_DIR", "")) / "certify" / "cifar10" / "resnet110"
    logs = {sigma: published / f"noise_{sigma}" / "test" / f"sigma_{sigma}.tsv" for sigma in rows}
    logs = {sigma: log for sigma, log in logs.items() if log.is_file()}
    if logs:
        file = PICTURES / "cifar10-fast.png"
        runs = [f"{network}, sigma {sigma}={run}" for network, found in (("airbench", rows), ("ResNet-110", logs))
                for sigma, run in found.items()]
        subprocess.run([CLI, "plot", "curve", *runs, "-o", str(file)], check=True)
        yield "## Curves"
        yield f"![Certified accuracy of airbench and of the published ResNet-110](../pictures/{file.name})"
        yield ("Ours is decided at steps of 0.25 alone, and is a lower bound between them. The published curve is of "
               "500 other test images, so the two are not paired.")
    if "0.25" in rows:
        file = PICTURES / "cifar10-gallery.png"
        subprocess.run([CLI, "plot", "gallery", str(rows["0.25"]), "--count", "12", "--data-dir", str(data_dir()),
                        "-o", str(file)], check=True)
        yield "## Gallery"
        yield (f"![Twelve test images from the largest radius to the smallest, each beside a noisy copy]"
               f"(../pictures/{file.name})")
        yield ("Twelve test images at sigma 0.25 by their certified radius, each beside one of its noisy copies. A "
               "dashed frame marks a wrong answer.")
