"""`smoothcert reproduce`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smoothcert.cli.options import verb
from smoothcert.cli.output import say
from smoothcert.progress import announce
from smoothcert.recipes.options import ReproduceConfig

_MACHINE = ("data_dir", "device", "threads", "workers", "cluster")


@verb
def reproduce(config: ReproduceConfig, as_json: bool) -> None:
    """Train and measure a table of a paper, and print what it expected beside what was obtained."""
    from smoothcert.machine import keep_freed_memory
    from smoothcert.recipes.comparison import compare_recipe, list_recipes, render_text, write_comparison
    from smoothcert.recipes.plan import plan
    from smoothcert.recipes.recipe import read_recipe, recipe_names
    from smoothcert.recipes.run import reproduce as run

    if config.recipe is None or config.list:
        recipes = [read_recipe(name) for name in ([config.recipe] if config.recipe else recipe_names())]
        say(json.dumps([one.model_dump(mode="json") for one in recipes]) if as_json else list_recipes(recipes))
        return
    planned = plan(read_recipe(config.recipe), config.scale)
    out = config.out or Path("reproduced") / f"{planned.recipe.name}-{config.scale}"
    machine = {name: getattr(config, name) for name in _MACHINE}
    keep_freed_memory()
    run(planned, config.row or tuple(planned.tasks), out, machine, _watch)
    comparison = compare_recipe(planned, out)
    write_comparison(comparison, out)
    say(json.dumps(comparison.to_json()) if as_json else f"{render_text(comparison)}\n\nwrote {out}/reproduced.md")


@contextmanager
def _watch(task: Any, rows: list[str]) -> Iterator[None]:
    """Show a line for a run; its progress is shown as any other."""
    announce(f"{task.step} of {', '.join(rows)}: {task.verb} -> steps/{task.folder}")
    yield
