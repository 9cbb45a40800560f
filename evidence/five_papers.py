"""The five papers, expected and obtained: every printed figure beside what was reached here, and what the rest takes.

    python evidence/five_papers.py [FOLDER ...]

keeps the figures of every `reproduced.json` under the folders in docs/results/reproduced/, but those of scale smoke,
and writes docs/results/five-papers.md from all that is kept, from the recipes and from the other pages. A kept line
counts only while its recipe still runs what the line came from.
"""

import math
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import run
import yaml
from kept import Obtained, keep, obtained, percent, percent_down, printed
from reckoning import Cost, cost, flops, rates
from scipy import stats

from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import Recipe, read_recipe

KEPT = run.RESULTS / "reproduced"
ITEMS = Path(__file__).with_suffix(".yaml")
FAST = "cifar10-fast-"


def missing(recipes: Iterable[Recipe], kept: Path) -> tuple[int, Cost]:
    """How many rows have no run at scale paper, and what they would take; runs that they share count once."""
    tasks, rows = {}, 0
    for recipe in recipes:
        done = {row for line in obtained(recipe, kept) if line.scale == "paper" for row in line.rows}
        planned = plan(recipe)
        left = [row for row in planned.tasks if row not in done]
        tasks |= {task.folder: task for task, _ in planned.runs(left)}
        rows += len(left)
    return rows, cost(tasks)


def main() -> str:
    return page(yaml.safe_load(ITEMS.read_text(encoding="utf-8")), KEPT, run.RESULTS)


def page(papers: Sequence[Mapping[str, Any]], kept: Path, results: Path) -> str:
    """The page, in Markdown.

    Args:
        papers: the content of five_papers.yaml.
        kept: the folder of the figures that `keep` wrote.
        results: the folder of the other pages.
    """
    told, shown = [_head(), _summary(papers, kept)], {}
    for paper in papers:
        told.append(f"## {paper['paper']}")
        for item in paper["items"]:
            title, pages = f"{_short(paper)}: {item['name']}", item.get("pages", [])
            told += [f"### {title}", *_beside_recipes(item)]
            for name in item.get("recipes", []):
                recipe = read_recipe(name)
                told += [f"`{name}`: see [above](#{shown[name]})."] if name in shown else [
                    _words(recipe, kept, any(one.get("of") == name for one in pages)),
                    *_table(recipe, list(obtained(recipe, kept)))]
                shown.setdefault(name, _anchor(title))
            for one in pages:
                told += [f"{one['words']} see [{one['page'].removesuffix('.md')}]({one['page']}).",
                         _quoted((results / one["page"]).read_text(encoding="utf-8"), one["columns"], one.get("row"))]
    return "\n\n".join(told) + "\n"


def _head() -> str:
    known = rates()
    ms = {f"{name} {how}": 1000 / known[f"{name} {how}"] for name in ("resnet110", "lenet")
          for how in ("reference", "ours")}
    speed = known["resnet110 reference"] * flops("resnet110", (3, 32, 32)) / 1e9
    told = f"""Every figure that the five papers print, beside what was reached here. Scale paper is the paper's own
        network, data and samples. At scale cpu it is mostly LeNet on MNIST in place of a ResNet, and the recipes
        `{FAST}*` ask the same of airbench on CIFAR-10: those figures stand beside the printed ones and need not agree.
        CIFAR-10 is here JPEG copies of quality 75, which lowers accuracy a little. All in percent but ACR; obtained
        figures are rounded down, with 95 % Clopper-Pearson intervals for new images of the same kind. A dash: the
        samples could not have proved this radius.
        @Core-hours are what the rows without a run at scale paper would take on one core, to train and to measure.
        They are reckoned from measured steps. A forward pass of ResNet-110 takes {ms["resnet110 reference"]:.1f} ms an
        image as torch runs it and {ms["resnet110 ours"]:.1f} ms in certification, one of LeNet
        {ms["lenet reference"]:.2f} and {ms["lenet ours"]:.2f} ms ([benchmarks](../benchmarks.md)). A pass of training
        is taken as three of them, a step of an attack as two; networks that were not measured run at ResNet-110's FLOP
        rate. The energy on MNIST takes 0.7 ms an image and pass, XHAT with 16 steps 14 ms, and LeNet behind the energy
        0.38 ms a sample, all measured. No GPU was measured: ResNet-110 trains here at {speed:.0f} GFLOP/s, so one that
        keeps up 10 TFLOP/s would take a {10_000 / speed:.0f}th of the hours of training."""
    return "\n\n".join(["# The five papers, expected and obtained",
                        *(textwrap.fill(" ".join(part.split()), 120) for part in told.split("@"))])


def _summary(papers: Sequence[Mapping[str, Any]], kept: Path) -> str:
    """Of each table or figure how much is printed and reached, and what the rest takes."""
    head = ["", "printed figures", "obtained at scale paper", "at another scale", "by the fast network",
            "rows missing at scale paper", "core-hours to train", "to measure"]
    every = {name for paper in papers for item in paper["items"] for name in item.get("recipes", [])}
    rows = [_summarised(_short(paper), item, kept) for paper in papers for item in paper["items"]]
    rows.append(["all together", "", "", "", "", *_left(sorted(every), kept)])
    legend = ("Figures of recipes are counted; those `below` are no recipe's. A run counts by its rows, of all rows of "
              "its recipes. 0 printed: curves or pictures without figures. What several tables share is reckoned in "
              "each, and once in all together.")
    return f"{_markdown(head, rows)}\n\n{legend}"


def _summarised(paper: str, item: Mapping[str, Any], kept: Path) -> list[str]:
    title, names = f"{paper}: {item['name']}", item.get("recipes", [])
    own = [name for name in names if not name.startswith(FAST)]
    count = sum(len(figures) for name in own for figures in printed(read_recipe(name)).values())
    beside = f" + {len(item['printed'])} below" if "printed" in item else ""
    paged = " + a page" if any("of" in one for one in item.get("pages", [])) else ""
    return [f"[{title}](#{_anchor(title)})", f"{count}{beside}", _reached(own, kept, {"paper"}),
            _reached(own, kept, {"cpu", "gpu"}) + paged,
            _reached([name for name in names if name not in own], kept, {"cpu", "gpu"}), *_left(own, kept)]


def _left(names: Iterable[str], kept: Path) -> list[str]:
    """Rows that are missing at scale paper, and their hours of training and measuring; blank without recipes."""
    recipes = [read_recipe(name) for name in names if not name.startswith(FAST)]
    if not recipes:
        return ["", "", ""]
    rows, left = missing(recipes, kept)
    return [str(rows), _hours(left.training), _hours(left.measuring)]


def _reached(names: Iterable[str], kept: Path, scales: set[str]) -> str:
    """Rows with a run at one of the scales, of all rows; blank without recipes."""
    recipes = [read_recipe(name) for name in names]
    done = sum(len({row for line in obtained(recipe, kept) if line.scale in scales for row in line.rows})
               for recipe in recipes)
    return f"{done} of {sum(len(recipe.rows) for recipe in recipes)} rows" if recipes else ""


def _beside_recipes(item: Mapping[str, Any]) -> Iterator[str]:
    """Figures that are no recipe's."""
    if item.get("printed"):
        told = _computed()
        rows = [[one["what"], one["value"], one["here"].format(**told)] for one in item["printed"]]
        yield _markdown(["", "printed", "here"], rows)


def _computed() -> dict[str, str]:
    """What can be said here of figures about time and samples."""
    needed = math.ceil(math.log(0.001) / stats.norm.logcdf(4))
    reach = stats.norm.ppf(0.001 ** (1 / 100_000))
    seconds = 100_100 / rates()["resnet110 ours"]
    return {"reach": f"{needed:,} by Clopper-Pearson, if all agree; 100,000 reach {math.floor(100 * reach) / 100:g} "
                     f"sigma",
            "image_seconds": f"{seconds:,.0f} s on one core, reckoned from the measured rate; see "
                             f"[benchmarks](../benchmarks.md) for sequential designs"}


def _words(recipe: Recipe, kept: Path, below: bool) -> str:
    """What was run of a recipe, and what is left; `below`: a page that is quoted below has its run at scale cpu."""
    runs = [f"{scale}, {rows} of {len(recipe.rows)} rows" for scale in recipe.scales
            if (rows := len({row for line in obtained(recipe, kept) if line.scale == scale for row in line.rows}))]
    runs += ["cpu, below"] if below else []
    told = f"Run at scale {'; '.join(runs)}." if runs else "Not run."
    words = f"`{recipe.name}`: {recipe.title}. {told}"
    if "paper" not in recipe.scales:
        return f"{words} Scale cpu takes {_lower(recipe.scales['cpu'].about)}"
    rows, left = missing([recipe], kept)
    return words if not rows else (f"{words} Missing at scale paper: {rows} row{'s' * (rows > 1)}, "
                                   f"{_hours(left.training)} core-hours to train and {_hours(left.measuring)} to "
                                   f"measure.")


def _table(recipe: Recipe, lines: Sequence[Obtained]) -> Iterator[str]:
    """Printed and obtained figures of every row that has either, and of lines that take the best of rows."""
    expected = printed(recipe)
    if "paper" not in recipe.scales:
        expected = expected if lines else {}  # another recipe's, which shows them
    both = list(dict.fromkeys([*expected, *((row, line.step) for line in lines for row in line.rows)]))
    at = sorted({point for told in expected.values() for point in told if not isinstance(point, str)}
                | {point for line in lines for point in line.figures})
    single = [name for name in ("ACR", "abstained") if any(name in told for told in expected.values())
              or any(name in line.single for line in lines)]
    rows = []
    for row, step in both:
        if told := {name: f"{value:.3f}" if name == "ACR" else percent(value)
                    for name, value in expected.get((row, step), {}).items()}:
            rows.append([f"{row}, {step}", "printed", *(told.get(name, "") for name in (*single, *at))])
        rows += [[f"{row}, {step}", ", ".join(filter(None, (line.scale, line.setting, f"{line.images} images"))),
                  *(line.single.get(name, "") for name in single), *(line.figures.get(point, "") for point in at)]
                 for line in lines if row in line.rows and step == line.step]
        rows += _best(recipe, row, step, lines, at, len(single))
    if rows:
        yield _markdown(["", "", *single, *(f"{point:g}" for point in at)], rows)


def _best(recipe: Recipe, name: str, step: str, lines: Sequence[Obtained], at: Sequence[float], skipped: int
          ) -> Iterator[list[str]]:
    """The best of a line's rows at each radius, for every scale that was run."""
    chosen = next((set(best.rows) for best in recipe.best if best.name == name), set())
    for scale in dict.fromkeys(line.scale for line in lines):
        found = [line for line in lines if line.scale == scale and line.step == step and chosen & set(line.rows)]
        if found:
            most = {point: max((line.shares[point] for line in found if point in line.shares), default=None)
                    for point in at}
            rows = len({row for line in found for row in line.rows} & chosen)
            yield [f"{name}, {step}", f"{scale}, best of {rows} of {len(chosen)} rows", *[""] * skipped,
                   *("-" if value is None else percent_down(value) for value in most.values())]


def _quoted(text: str, columns: str, row: str | None) -> str:
    """The first table of a page with that column, and with that row where one is named, as it is there."""
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    wanted = [table.strip() for table in tables if re.search(rf"\| {re.escape(columns)} \|", table.splitlines()[0])
              and (row is None or re.search(rf"^\| {re.escape(row)} \|", table, re.M))]
    if not wanted:
        sys.exit(f"no table with a column {columns!r} and a row {row!r}: mend {ITEMS.name}")
    return wanted[0]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f}" if hours < 10 else f"{hours:,.0f}"


def _short(paper: Mapping[str, Any]) -> str:
    return paper["paper"].split()[0]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _lower(words: str) -> str:
    return words.strip()[:1].lower() + words.strip()[1:]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        keep(Path(name), KEPT)
    run.main(["five_papers"])
