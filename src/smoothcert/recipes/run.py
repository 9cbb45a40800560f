"""The runs of a recipe: every task once, in order, each resumed where a killed run left it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from smoothcert.checks import check_known
from smoothcert.io.files import make_folder
from smoothcert.machine import pick_device, processors
from smoothcert.progress import Progress
from smoothcert.recipes.options import RecertifyConfig
from smoothcert.recipes.plan import RecipePlan, Task
from smoothcert.recipes.recipe import VERBS, Options
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.store import read_store

Watch = Callable[[Task, list[str]], AbstractContextManager[Progress | None]]
"""(the task about to run, the rows that share it) -> a context that gives the task's progress callback, or None."""


def reproduce(plan: RecipePlan, rows: Iterable[str], out: Path, machine: Options, watch: Watch) -> None:
    """Run the tasks of some rows of a plan that `out` does not hold complete.

    Args:
        machine: options of the machine (data_dir, device, threads, workers, cluster), for every verb that takes them.
            Without `workers`, each verb gets `usual_workers`.
    Raises:
        UnknownNameError: no such row. ConfigError: before any work. And what the verbs raise.
    """
    runs = plan.runs([check_known(f"row of {plan.recipe.name}", row, plan.tasks) for row in rows])
    given = {name: value for name, value in machine.items() if value is not None}
    left = [(task, task.configure(out, {"workers": usual_workers(plan.scale, task.verb, machine), **given}),
             shared) for task, shared in runs if not task.is_done(out)]
    make_folder(out / "steps")
    for task, config, shared in left:
        with watch(task, shared) as progress:
            VERBS[task.verb].run(config, progress)


def usual_workers(scale: str, verb: str, machine: Options) -> int | None:
    """Return the number of processes of a step where the user gives none; None leaves it to the verb.

    It is one for each GPU, at most four; without a GPU it is one for each processor, at most four, to sample. The verb
    decides in training without a GPU, which threads speed up more than processes; in a cluster, which has its own
    processes; and at scale smoke, where starting processes takes longer than the work.
    """
    if scale == "smoke" or machine.get("cluster"):
        return None
    if pick_device(machine.get("device") or "auto").type == "cuda":
        return min(4, torch.cuda.device_count())
    return None if verb == "train" else min(4, processors())


def recertify_step(config: RecertifyConfig, progress: Progress | None) -> None:
    """Certify a store's images again from its counts, into another store."""
    stored = read_store(config.store)
    write_recertified(config.out, stored, *recertify(stored, config.alpha, config.method))
