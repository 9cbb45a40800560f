"""Running a recipe: every task once, in order, each picked up where a killed run left it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from smoothcert.checks import check_known
from smoothcert.io.files import make_folder
from smoothcert.machine import pick_device, processors
from smoothcert.progress import Progress
from smoothcert.recipes.options import RecertifyConfig
from smoothcert.recipes.plan import Plan, Task
from smoothcert.recipes.recipe import VERBS, Options
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.store import read_store

Watch = Callable[[Task, list[str]], AbstractContextManager[Progress]]
"""Called with a task that is about to run and the rows that share it; gives what is told its progress."""


def reproduce(plan: Plan, rows: Iterable[str], out: Path, machine: Options, watch: Watch) -> None:
    """Run what `rows` of a plan need and `out` does not hold complete.

    Args:
        machine: options of the machine (data_dir, device, threads, workers, cluster), given to every verb that takes
            them. Without `workers`, `usual_workers` says how many.
    Raises:
        UnknownNameError: no such row. ConfigError: before any work. And whatever the verbs raise.
    """
    runs = plan.runs([check_known(f"row of {plan.recipe.name}", row, plan.tasks) for row in rows])
    given = {name: value for name, value in machine.items() if value is not None}
    left = [(task, task.configured(out, {"workers": usual_workers(plan.scale, task.verb, machine), **given}),
             shared) for task, shared in runs if not task.is_done(out)]
    make_folder(out / "steps")
    for task, config, shared in left:
        with watch(task, shared) as progress:
            VERBS[task.verb].run(config, progress)


def usual_workers(scale: str, verb: str, machine: Options) -> int | None:
    """Return the number of processes of a step where none is given; None leaves it to the verb.

    One for each GPU, four at most; on processors sampling has one for each, four at most, and training none is named
    for: threads share its work better than processes do. Nor are any in a cluster, which has its own, or at scale
    smoke, where starting processes would take longer than the work.
    """
    if scale == "smoke" or machine.get("cluster"):
        return None
    if pick_device(machine.get("device") or "auto").type == "cuda":
        return min(4, torch.cuda.device_count())
    return None if verb == "train" else min(4, processors())


def recertify_step(config: RecertifyConfig, progress: Progress) -> None:
    """Certify a store's images again from its counts, into a store of their own."""
    stored = read_store(config.store)
    write_recertified(config.out, stored, *recertify(stored, config.alpha, config.method))
