"""From a recipe to runs: the options of every step for every row, checked, and a folder for each by what they are."""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smoothcert.checks import suggestion
from smoothcert.config.base import Config
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
        folder: the verb and a digest of its options, so that other options never share it.
        options: with a `Reference` where a value is the folder of another task.
    """

    step: str
    verb: str
    options: Options = field(hash=False)
    folder: str

    @property
    def needs(self) -> set[str]:
        """Folders of the tasks that it uses."""
        return {value.folder for value in _leaves(self.options) if isinstance(value, Reference)}

    def path(self, out: Path) -> Path:
        return out / "steps" / self.folder

    def is_done(self, out: Path) -> bool:
        marker = self.path(out) / VERBS[self.verb].leaves
        content = read_json(marker) if marker.is_file() else None
        return isinstance(content, dict) and content.get("complete") is True

    def configured(self, out: Path, machine: Options) -> Config:
        """Its configuration, with the machine's options that the verb takes."""
        kind = VERBS[self.verb].configuration()
        options = _replaced(self.options, lambda value: str(out / "steps" / value.folder)
                            if isinstance(value, Reference) else value)
        taken = {name: value for name, value in machine.items() if name in kind.model_fields and value is not None}
        return kind.checked({**_within(options, machine.get("data_dir")), **taken, "out": self.path(out)})


@dataclass(frozen=True)
class Plan:
    """A recipe at a scale: the tasks of each row, in the order they run."""

    recipe: Recipe
    scale: str
    tasks: dict[str, tuple[Task, ...]]

    def runs(self, rows: Iterable[str]) -> list[tuple[Task, list[str]]]:
        """Every task of these rows once, with the rows that share it."""
        shared: dict[str, tuple[Task, list[str]]] = {}
        for row in rows:
            for task in self.tasks[row]:
                shared.setdefault(task.folder, (task, []))[1].append(row)
        return list(shared.values())


def plan(recipe: Recipe, scale: str = "paper") -> Plan:
    """What every row of a recipe runs at a scale, all of it checked by the verbs' own configurations.

    Raises:
        InputError: the recipe has no such scale. ConfigError: with the problems of all rows.
    """
    if scale not in recipe.scales:
        raise InputError(f"{recipe.name} has no scale {scale!r}; its scales: {', '.join(recipe.scales)}")
    every = {row.name: _row_tasks(recipe, recipe.scales[scale], row) for row in recipe.rows}  # type: ignore[index]
    tasks = {row: _needed([task for task, _ in found]) for row, found in every.items()}
    used = {task.step for wanted in tasks.values() for task in wanted}
    problems: dict[str, list[str]] = {}
    for row, found in every.items():
        for task, unresolved in found:
            if task in tasks[row] or task.step not in used:
                for problem in (*unresolved, *_option_problems(task)):
                    problems.setdefault(f"step {task.step}: {problem}", []).append(row)
    told = [*_structure(recipe), *(_of_rows(problem, rows, recipe) for problem, rows in problems.items())]
    unused = [f"step {step.name}: no step that measures something uses it" for step in recipe.steps
              if step.name not in used]
    if told or unused:
        raise ConfigError(told or unused, f"{recipe.name} at scale {scale}")
    return Plan(recipe, scale, tasks)


def digest(verb: str, options: Options) -> str:
    """The name of a folder: the verb, and 12 hexadecimal digits of SHA-256 of its options."""
    def told(value: Any) -> Any:
        return {"folder": value.folder} if isinstance(value, Reference) else str(value)

    content = json.dumps(options, sort_keys=True, default=told)
    return f"{verb}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _structure(recipe: Recipe) -> list[str]:
    """Names that are missing, doubled or unknown anywhere in a recipe."""
    steps, rows = [step.name for step in recipe.steps], [row.name for row in recipe.rows]
    problems = [f"{kind} {name!r} is there twice" for kind, names in (("step", steps), ("row", rows))
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


def _row_tasks(recipe: Recipe, scale: Scale, row: Row) -> list[tuple[Task, list[str]]]:
    """Every step's task for a row, each with what could not be resolved in it."""
    parameters = _merged(_merged(recipe.parameters, row.parameters),
                         _merged(scale.parameters, scale.rows.get(row.name, {})))
    found: dict[str, tuple[Task, list[str]]] = {}
    for step in recipe.steps:
        options = _merged(_dashed(step.options), _dashed(scale.steps.get(step.name, {})))
        earlier = {name: task.folder for name, (task, _) in found.items()}
        options, unresolved = _resolved(options, parameters, earlier, [other.name for other in recipe.steps])
        found[step.name] = Task(step.name, step.verb, options, digest(step.verb, options)), unresolved
    return list(found.values())


def _resolved(
    options: Options, parameters: Options, earlier: Mapping[str, str], steps: list[str]
) -> tuple[Options, list[str]]:
    """Options with every $row.NAME and $step.NAME replaced and empty ones left out, and what could not be."""
    problems: list[str] = []

    def value_of(value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith("$")):
            return value
        kind, _, name = value[1:].partition(".")
        if kind == "step" and name in earlier:
            return Reference(earlier[name])
        problems.append(_unresolved(value, kind, name, parameters, steps))
        return value

    def with_parameters(value: Any) -> Any:
        is_row = isinstance(value, str) and value.startswith("$row.")
        return parameters.get(value.removeprefix("$row."), value) if is_row else value

    return _without_none(_replaced(_replaced(options, with_parameters), value_of)), problems


def _unresolved(value: str, kind: str, name: str, parameters: Options, steps: list[str]) -> str:
    if kind == "row":
        return f"{value}: the row has no parameter {name!r}{suggestion(name, parameters)}"
    if kind == "step" and name in steps:
        return f"{value}: that step does not come earlier"
    if kind == "step":
        return f"{value}: there is no step {name!r}{suggestion(name, steps)}"
    return f"{value}: a value with a dollar is $row.NAME or $step.NAME"


def _option_problems(task: Task) -> list[str]:
    """What the verb's own configuration, and the objective of a training step, have against the options."""
    if task.verb not in VERBS:
        return []
    machine = [f"{name}: belongs to the machine: give it on the command line" for name in task.options
               if name in MACHINE]
    rest = {name: value for name, value in task.options.items() if name not in MACHINE}
    known = {name: value for name, value in rest.items() if not str(value).startswith("$")}  # reported elsewhere
    try:
        config = replace(task, options=known).configured(Path("out"), {})
        if task.verb == "train":
            _check_objective(config)
    except ConfigError as error:
        missing = [f"{name}: is required" for name in rest if name not in known]
        return [*machine, *(p for p in error.problems if not p.startswith(tuple(missing)))]
    except InputError as error:
        return [*machine, *([] if "$" in str(rest) else [str(error)])]
    return machine


def _check_objective(config: Any) -> None:
    """Raise InputError for options that the objective refuses; a module stands for the classifier that it is to ask."""
    asked = {"classifier": importlib.import_module("torch.nn").Identity()} if config.classifier else {}
    build = importlib.import_module("smoothcert.objectives").build_objective
    build(config.objective, config.sigma, **config.objective_option, **asked)


def _needed(tasks: list[Task]) -> tuple[Task, ...]:
    """The tasks that measure something, and what they use."""
    wanted: list[Task] = []
    for task in reversed(tasks):
        if task.verb not in VERBS or VERBS[task.verb].measures or any(task.folder in other.needs for other in wanted):
            wanted.insert(0, task)
    return tuple(wanted)


def _of_rows(problem: str, rows: list[str], recipe: Recipe) -> str:
    if len(rows) == len(recipe.rows):
        return problem
    return f"row{'s' if len(rows) > 1 else ''} {', '.join(rows)}: {problem}"


def _merged(below: Options, above: Options) -> Options:
    """`above` over `below`, mappings within mappings alike."""
    both = {name: _merged(below[name], value) for name, value in above.items()
            if isinstance(value, dict) and isinstance(below.get(name), dict)}
    return {**below, **above, **both}


def _dashed(options: Options) -> Options:
    return {name.replace("-", "_"): value for name, value in options.items()}


def _replaced(value: Any, other: Callable[[Any], Any]) -> Any:
    """`other` in place of every value within mappings and lists."""
    if isinstance(value, dict):
        return {name: _replaced(inner, other) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, other) for inner in value]
    return other(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(inner) for name, inner in value.items() if inner is not None}
    return value


def _leaves(value: Any) -> Iterator[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        yield value
    else:
        for part in inner:
            yield from _leaves(part)


def _within(options: Options, data_dir: Path | None) -> Options:
    """Images named by a relative path, parquet:PATH or imagefolder:PATH, lie in the data folder where one is given."""
    def moved(value: Any) -> Any:
        kind, colon, path = str(value).partition(":")
        if data_dir is None or not colon or kind not in ("parquet", "imagefolder"):
            return value
        return f"{kind}:{Path(data_dir) / path}"

    return {name: moved(value) if name in ("data", "unlabelled") else value for name, value in options.items()}
