"""What a recipe expected beside what was obtained: read from the folders of its finished steps."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from smoothcert.recipes.plan import RecipePlan, Task
from smoothcert.recipes.recipe import VERBS, Expected
from smoothcert.results.attacks import Outcome, axis_of, outcomes
from smoothcert.results.certified import Result, default_radii
from smoothcert.results.distributional import FORMS, Robustness
from smoothcert.results.predictions import Predicted
from smoothcert.stats.binomial import clopper_pearson
from smoothcert.store.store import Store, read_store

RHO = 0.05
"""Failure probability of each interval."""


@dataclass(frozen=True)
class Figure:
    """A share of the images at a radius (certify), an eps or a multiple of the radius (attack; 0 is clean), or a bound
    on the expected loss at a transport cost (distributional).

    Certified figures are `out_of_reach` where no sample of the run could have proved that radius: they say nothing.
    `low` and `high` are the Clopper-Pearson interval, at confidence 1 - RHO, of that share of new images of the same
    kind, or None for bounds, and for the best of several rows, which were chosen by these very images.
    """

    at: float
    obtained: float
    low: float | None
    high: float | None
    expected: float | None
    out_of_reach: bool = False

    @property
    def excludes_expected(self) -> bool:
        if self.out_of_reach:
            return False
        return None not in (self.expected, self.low, self.high) and not self.low <= self.expected <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class Line:
    """What a step measured for a row: `figures` are accuracies, shares of `changed` answers, or each a `bound`.

    `rows` are those that are one run at this scale, mostly a single one; a figure is expected of them where all who
    print it agree. `seconds` are those of the training of everything that the step used; `setting` tells apart the
    attacks or the bounds of a step.
    """

    rows: tuple[str, ...]
    step: str
    verb: str
    folder: str
    images: int
    seconds: float
    figures: tuple[Figure, ...]
    setting: str = ""
    measure: str = "accuracy"
    acr: float | None = None
    expected_acr: float | None = None
    abstained: float | None = None
    expected_abstained: float | None = None

    @property
    def row(self) -> str:
        """What the rows are called together."""
        return " = ".join(self.rows) if len(self.rows) < 3 else f"{self.rows[0]} = {len(self.rows) - 1} more"


@dataclass(frozen=True)
class Best:
    """At each radius the best of the rows measured so far, `rows` of `of`; rows that are one run count once."""

    name: str
    step: str
    rows: int
    of: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Comparison:
    """All that is finished of a recipe at a scale."""

    plan: RecipePlan
    lines: tuple[Line, ...]
    best: tuple[Best, ...]

    def content(self) -> dict[str, Any]:
        """Plain values, for programs."""
        recipe, scale = self.plan.recipe, self.plan.scale
        return {"recipe": recipe.name, "title": recipe.title, "source": recipe.source, "scale": scale,
                "about": recipe.scales[scale].about, "comparable": scale == "paper", "rho": RHO,  # type: ignore[index]
                "lines": [{"row": line.row, **asdict(line)} for line in self.lines],
                "best": [asdict(best) for best in self.best]}


def compared(plan: RecipePlan, out: Path) -> Comparison:
    """The comparison for every row whose steps are complete in `out`."""
    lines = []
    for step in dict.fromkeys(task.step for tasks in plan.tasks.values() for task in tasks):
        done = [(row, task) for row, tasks in plan.tasks.items() for task in tasks
                if task.step == step and VERBS[task.verb].measures and task.is_done(out)]
        stores = {task.folder: read_store(task.path(out)) for _, task in done}
        at = _points(plan, step, [(task, stores[task.folder]) for _, task in done])
        for folder, store in stores.items():
            rows = tuple(row for row, task in done if task.folder == folder)
            task = next(task for _, task in done if task.folder == folder)
            lines += _READERS[task.verb](_Read(plan, out, rows, task, store, at))
    return Comparison(plan, tuple(lines), tuple(_best(plan, lines)))


@dataclass(frozen=True)
class _Read:
    """What a reader of one kind of store needs."""

    plan: RecipePlan
    out: Path
    rows: tuple[str, ...]
    task: Task
    store: Store
    at: Sequence[float]

    @property
    def expected(self) -> Expected:
        """The figures on which all rows agree that print them."""
        printed = [row.expected[self.task.step].model_dump() for row in self.plan.recipe.rows
                   if row.name in self.rows and self.task.step in row.expected]
        return Expected.checked(_agreed(printed))

    def line(self, figures: Sequence[Figure], **facts: Any) -> Line:
        return Line(self.rows, self.task.step, self.task.verb, self.task.folder, facts.pop("images"),
                    _seconds(self.plan.tasks[self.rows[0]], self.task, self.out), tuple(figures), **facts)


def _agreed(printed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several mappings, nested or not, say alike wherever they say anything."""
    values = {name: [one[name] for one in printed if one.get(name) is not None] for one in printed for name in one}
    return {name: _agreed(found) if isinstance(found[0], dict) else found[0] for name, found in values.items()
            if found and (isinstance(found[0], dict) or all(value == found[0] for value in found))}


def _certified(read: _Read) -> Iterator[Line]:
    result, expected = Result.of(read.store), read.expected
    counts = result.at(read.at, RHO).claimed.tolist()
    figures = [replace(_figure(r, count, result.images, expected.accuracy), out_of_reach=result.is_out_of_reach(r))
               for r, count in zip(read.at, counts, strict=True)]
    yield read.line(figures, images=result.images, acr=result.acr, expected_acr=expected.acr,
                    abstained=float(result.abstained.mean()), expected_abstained=expected.abstained)


def _predicted(read: _Read) -> Iterator[Line]:
    """A line for every n; what was printed stands beside the largest."""
    last, expected = Predicted.of(read.store), read.expected
    for look in last.looks:
        printed = expected if look.n == last.n else Expected.checked({})
        figure = _figure(0.0, int(look.correct.sum()), look.images, printed.accuracy)
        yield read.line([figure], images=look.images, abstained=float(look.abstained.mean()),
                        expected_abstained=printed.abstained, setting=f"n {look.n:,}" if last.earlier else "")


def _attacked(read: _Read) -> Iterator[Line]:
    """A line for every m, T and n; accuracy by eps, or changed answers by multiples of the radius."""
    measure = "accuracy" if axis_of(read.store) == "eps" else "changed"
    expected, found = getattr(read.expected, measure), outcomes(read.store)
    clean = {outcome.n: outcome for outcome in found if outcome.size == 0}
    groups: dict[tuple[int, int, int], list[Outcome]] = {}
    for outcome in found:
        if outcome.size:
            groups.setdefault((outcome.m, outcome.steps, outcome.n), []).append(outcome)
    for (m, steps, n), attacks in groups.items():
        points = [*([clean[n]] if n in clean else []), *attacks]
        figures = [_figure(o.size, round(getattr(o, measure) * o.images), o.images, expected) for o in points]
        yield read.line(figures, images=attacks[0].images, setting=f"m {m}, T {steps}, n {n:,}", measure=measure)


def _bounded(read: _Read) -> Iterator[Line]:
    """A line for the closed certificate and for every form of the bound, by the transport costs that the step named."""
    run = Robustness.of(read.store)
    at = {rho: run.at(rho) for rho in run.rho}
    for kind in ("certificate", *FORMS):
        if all(figures[kind] is not None for figures in at.values()):
            labels = sorted({figures[f"{kind}_label"] for figures in at.values()}) if kind in FORMS else []
            named = f"{kind} (rho with noise)" if kind == "inside" else kind
            yield read.line([Figure(rho, figures[kind], None, None, None) for rho, figures in at.items()],
                            images=run.images, setting=", ".join([named, *labels]), measure="bound")


_READERS: dict[str, Callable[[_Read], Iterator[Line]]] = {
    "certify": _certified, "recertify": _certified, "predict": _predicted, "attack": _attacked,
    "distributional": _bounded,
}


def _points(plan: RecipePlan, step: str, done: Sequence[tuple[Task, Store]]) -> list[float]:
    """The radii of a step's table: those printed in the paper or asked for, of any step where it has none, else evenly
    spaced ones."""
    def named(steps: Collection[str]) -> list[float]:
        printed = [row.expected[name].accuracy for row in plan.recipe.rows for name in steps if name in row.expected]
        printed += [best.accuracy for best in plan.recipe.best if best.step in steps]
        asked = [task.options.get("radii", ()) for tasks in plan.tasks.values() for task in tasks if task.step in steps]
        return sorted({float(r) for radii in (*printed, *asked) for r in radii})

    if not done or done[0][1].kind != "certify":
        return named([step])
    return named([step]) or named([other.name for other in plan.recipe.steps if other.verb == "certify"]) \
        or default_radii([Result.of(store) for _, store in done])


def _figure(at: float, count: int, images: int, expected: Mapping[float, float]) -> Figure:
    low, high = (float(clopper_pearson(count, images, RHO / 2, side)) for side in ("lower", "upper"))
    return Figure(at, count / images, low, high, expected.get(at))


def _best(plan: RecipePlan, lines: Sequence[Line]) -> Iterator[Best]:
    for best in plan.recipe.best:
        chosen = [line for line in lines if line.step == best.step and set(line.rows) & set(best.rows)]
        if not chosen:
            continue
        points = np.array([[figure.obtained for figure in line.figures] for line in chosen]).max(axis=0)
        beyond = [all(line.figures[k].out_of_reach for line in chosen) for k in range(len(points))]
        figures = tuple(Figure(figure.at, float(value), None, None, best.accuracy.get(figure.at), out)
                        for figure, value, out in zip(chosen[0].figures, points, beyond, strict=True))
        of = {task.folder for row in best.rows for task in plan.tasks[row] if task.step == best.step}
        yield Best(best.name, best.step, len(chosen), len(of), figures)


def _seconds(tasks: Sequence[Task], task: Task, out: Path) -> float:
    """Seconds that the models a task uses, and those they come from, were trained."""
    used, open_ = set(), {task.folder}
    while open_:
        used |= open_
        open_ = {folder for other in tasks if other.folder in open_ for folder in other.needs} - used
    files = [other.path(out) / "metrics.jsonl" for other in tasks if other.verb == "train" and other.folder in used]
    return sum(_seconds_in(line) for file in files
               for line in file.read_text(encoding="utf-8", errors="replace").splitlines())


def _seconds_in(line: str) -> float:
    """The seconds of an epoch; 0 for a line that a kill cut off, or that is none."""
    try:
        return float(json.loads(line)["seconds"])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return 0.0
