"""Plans of recipes: the options of every step for every row, checked, and a folder for each named by its options."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smoothcert.checks import suggestion
from smoothcert.config.base import Config
from smoothcert.data.load import DISK_KINDS
from smoothcert.errors import ConfigError, InputError
from smoothcert.io.files import read_json
from smoothcert.recipes.recipe import MACHINE, VERBS, Options, Recipe, Row, Scale


@dataclass(frozen=True)
class Reference:
    """The folder of an earlier step, in place of an option's value."""

    folder: str


@dataclass(frozen=True)
class Task:
    """One run: a step with the options that one or more rows give it.

    Attributes:
        options: with a `Reference` where a value is the folder of another task.
        folder: the verb and a digest of its options, so that tasks with other options never share it.
    """

    step: str
    verb: str
    options: Options = field(hash=False)
    folder: str

    @property
    def needs(self) -> set[str]:
        """The folders of the tasks that it uses."""
        found: set[str] = set()
        _map_values(self.options, lambda value: found.add(value.folder) if isinstance(value, Reference) else None)
        return found

    def path(self, out: Path) -> Path:
        """Return its folder in the output folder of a recipe."""
        return out / "steps" / self.folder

    def is_done(self, out: Path) -> bool:
        """Return True where its folder holds a finished run."""
        marker = self.path(out) / VERBS[self.verb].marker
        content = read_json(marker) if marker.is_file() else None
        return isinstance(content, dict) and content.get("complete") is True

    def configure(self, out: Path, machine: Options) -> Config:
        """Return its configuration, with the machine's options that the verb takes. Raises ConfigError.

        Data named by a relative path, such as parquet:PATH or imagefolder:PATH, lie in the machine's data folder.
        """
        kind = VERBS[self.verb].config_class()
        options = _map_values(self.options, lambda value: str(out / "steps" / value.folder)
                              if isinstance(value, Reference) else value)
        for name in ("data", "unlabelled"):
            form, colon, path = str(options.get(name)).partition(":")
            if colon and form in DISK_KINDS and machine.get("data_dir") is not None:
                options[name] = f"{form}:{Path(machine['data_dir']) / path}"
        taken = {name: value for name, value in machine.items() if name in kind.model_fields and value is not None}
        return kind.parse({**options, **taken, "out": self.path(out)})


@dataclass(frozen=True)
class RecipePlan:
    """A recipe at a scale: the tasks of each row, in the order in which they run."""

    recipe: Recipe
    scale: str
    tasks: dict[str, tuple[Task, ...]]

    def runs(self, rows: Iterable[str]) -> list[tuple[Task, list[str]]]:
        """Return every task of these rows once, with the rows that share it."""
        shared: dict[str, tuple[Task, list[str]]] = {}
        for row in rows:
            for task in self.tasks[row]:
                shared.setdefault(task.folder, (task, []))[1].append(row)
        return list(shared.values())


def plan(recipe: Recipe, scale: str = "paper") -> RecipePlan:
    """Plan the tasks of every row of a recipe at a scale, and check them all with the verbs' own configurations.

    A row has the tasks that measure something, and those that they use. A step that no scale uses is a mistake.

    Raises:
        InputError: the recipe has no such scale. ConfigError: with the problems of all rows.
    """
    if scale not in recipe.scales:
        raise InputError(f"{recipe.name} has no scale {scale!r}; its scales: {', '.join(recipe.scales)}")
    at_scale = {name: {row.name: _resolve_row(recipe, budget, row) for row in recipe.rows}
                for name, budget in recipe.scales.items()}
    used = {task.step for rows in at_scale.values() for found in rows.values() for task in _wanted(found)}
    resolved = at_scale[scale]  # type: ignore[index]
    tasks = {row: _wanted(found) for row, found in resolved.items()}
    rows_with: dict[str, list[str]] = {}
    for row, found in resolved.items():
        for task, unresolved in found:
            if task in tasks[row] or task.step not in used:
                for problem in (*unresolved, *_check_options(task)):
                    rows_with.setdefault(f"step {task.step}: {problem}", []).append(row)
    problems = _check_names(recipe)
    for problem, rows in rows_with.items():
        where = f"row{'s' if len(rows) > 1 else ''} {', '.join(rows)}: " if len(rows) < len(recipe.rows) else ""
        problems.append(where + problem)
    problems = problems or [f"step {step.name}: no step that measures something uses it" for step in recipe.steps
                            if step.name not in used]
    if problems:
        raise ConfigError(problems, f"{recipe.name} at scale {scale}")
    return RecipePlan(recipe, scale, tasks)


def digest(verb: str, options: Options) -> str:
    """Return the name of a folder: the verb, and 12 hexadecimal digits of the SHA-256 of its options."""
    def encode(value: Any) -> Any:
        return {"folder": value.folder} if isinstance(value, Reference) else str(value)

    content = json.dumps(options, sort_keys=True, default=encode)
    return f"{verb}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _check_names(recipe: Recipe) -> list[str]:
    """Return the problems with names in a recipe: missing, repeated or unknown ones."""
    steps, rows = [step.name for step in recipe.steps], [row.name for row in recipe.rows]
    problems = [f"{kind} {name!r} appears twice" for kind, names in (("step", steps), ("row", rows))
                for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [] if rows else ["rows: there are none"]
    for step in recipe.steps:
        if step.verb not in VERBS:
            problems.append(f"step {step.name}: unknown verb {step.verb!r}{suggestion(step.verb, VERBS)}; known: "
                            f"{', '.join(VERBS)}")
    named = [(f"row {row.name}, expected", "step", name, steps) for row in recipe.rows for name in row.expected]
    named += [(f"best {best.name}", "step", best.step, steps) for best in recipe.best]
    named += [(f"best {best.name}", "row", name, rows) for best in recipe.best for name in best.rows]
    for name, scale in recipe.scales.items():
        named += [(f"scale {name}", "step", step, steps) for step in scale.steps]
        named += [(f"scale {name}", "row", row, rows) for row in scale.rows]
    problems += [f"{where}: unknown {kind} {name!r}{suggestion(name, known)}"
                 for where, kind, name, known in named if name not in known]
    return problems


def _wanted(found: list[tuple[Task, list[str]]]) -> tuple[Task, ...]:
    """Return the tasks of a row that measure something, and those that they use."""
    wanted: list[Task] = []
    for task, _ in reversed(found):
        measures = task.verb not in VERBS or VERBS[task.verb].measures
        if measures or any(task.folder in other.needs for other in wanted):
            wanted.insert(0, task)
    return tuple(wanted)


def _resolve_row(recipe: Recipe, scale: Scale, row: Row) -> list[tuple[Task, list[str]]]:
    """Return every step's task for a row, each with its values that could not be resolved."""
    parameters = _merge(_merge(recipe.parameters, row.parameters),
                        _merge(scale.parameters, scale.rows.get(row.name, {})))
    found: dict[str, tuple[Task, list[str]]] = {}
    for step in recipe.steps:
        options, changes = ({name.replace("-", "_"): value for name, value in given.items()}
                            for given in (step.options, scale.steps.get(step.name, {})))
        earlier = {name: task.folder for name, (task, _) in found.items()}
        resolved, problems = _resolve(_merge(options, changes), parameters, earlier,
                                      [other.name for other in recipe.steps])
        found[step.name] = Task(step.name, step.verb, resolved, digest(step.verb, resolved)), problems
    return list(found.values())


def _resolve(
    options: Options, parameters: Options, earlier: Mapping[str, str], steps: list[str]
) -> tuple[Options, list[str]]:
    """Return options with every $row.NAME and $step.NAME replaced, and a problem for each that could not be."""
    problems: list[str] = []

    def insert_parameter(value: Any) -> Any:
        is_row = isinstance(value, str) and value.startswith("$row.")
        return parameters.get(value.removeprefix("$row."), value) if is_row else value

    def insert_folder(value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith("$")):
            return value
        kind, _, name = value[1:].partition(".")
        if kind == "step" and name in earlier:
            return Reference(earlier[name])
        if kind == "row":
            problems.append(f"{value}: the row has no parameter {name!r}{suggestion(name, parameters)}")
        elif kind == "step" and name in steps:
            problems.append(f"{value}: that step does not come earlier")
        elif kind == "step":
            problems.append(f"{value}: there is no step {name!r}{suggestion(name, steps)}")
        else:
            problems.append(f"{value}: a value that begins with $ must be $row.NAME or $step.NAME")
        return value

    return _map_values(_map_values(options, insert_parameter), insert_folder), problems


def _check_options(task: Task) -> list[str]:
    """Return the problems that the verb's configuration, and the objective of a training step, find in the options."""
    if task.verb not in VERBS:
        return []
    machine = [f"{name}: depends on the machine: give it on the command line" for name in task.options
               if name in MACHINE]
    rest = {name: value for name, value in task.options.items() if name not in MACHINE}
    known = {name: value for name, value in rest.items() if not str(value).startswith("$")}  # reported elsewhere
    try:
        replace(task, options=known).configure(Path("out"), {})
    except ConfigError as error:
        missing = [f"{name}: is required" for name in rest if name not in known]
        return [*machine, *(p for p in error.problems if not p.startswith(tuple(missing)))]
    except InputError as error:
        return [*machine, *([] if "$" in str(rest) else [str(error)])]
    return machine


def _merge(below: Options, above: Options) -> Options:
    """Return `above` over `below`; mappings within mappings are merged alike."""
    both = {name: _merge(below[name], value) for name, value in above.items()
            if isinstance(value, dict) and isinstance(below.get(name), dict)}
    return {**below, **above, **both}


def _map_values(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return mappings and lists with `change` applied to every value within; mappings drop values that become None."""
    if isinstance(value, dict):
        changed = {name: _map_values(inner, change) for name, inner in value.items()}
        return {name: inner for name, inner in changed.items() if inner is not None}
    if isinstance(value, list):
        return [_map_values(inner, change) for inner in value]
    return change(value)
