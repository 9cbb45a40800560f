"""The recipes of Yang et al. 2021: the figures as printed, and a step that bounds the expected loss."""

from contextlib import nullcontext

import pytest

from smoothcert.progress import silent
from smoothcert.recipes.comparison import compare_recipe, render_markdown, render_text
from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import read_recipe
from smoothcert.recipes.run import reproduce
from smoothcert.results.attacks import outcomes
from smoothcert.results.distributional import Robustness
from smoothcert.results.figures import up
from smoothcert.store.store import read_store

ROW = "nal-1.5"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    planned, out = plan(read_recipe("yang2021-figure2"), "smoke"), tmp_path_factory.mktemp("figure2")
    reproduce(planned, [ROW], out, {"threads": 1}, lambda task, rows: nullcontext(silent))
    return planned, out, {task.step: task.path(out) for task in planned.tasks[ROW]}


def test_figures_are_those_of_the_paper():
    rows = {row.name: row.expected["attacked"].accuracy for row in read_recipe("yang2021-table2").rows}
    assert len(rows) == 6
    assert rows["K-4-s-4"] == {0: .8546, .25: .7643, .5: .6520, .75: .5202, 1: .3922, 1.25: .2765, 1.5: .1811,
                               1.75: .1120}
    assert (rows["K-4-s-1"][1.5], rows["K-8-s-8"][1.5], rows["K-8-s-1"][0]) == (.0983, .1895, .8593)


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_rows_of_one_table_differ_in_training_alone(scale):
    """The same images, sizes and attack for all; at scale cpu NAL and WRM cost about the same."""
    tasks = plan(read_recipe("yang2021-mnist"), scale).tasks
    for step, own in (("model", {"model_option", "lr", "objective", "objective_option"}), ("attacked", {"model"})):
        options = [{name: value for name, value in task.options.items() if name not in own}
                   for row in tasks.values() for task in row if task.step == step]
        assert len(options) == 13
        assert all(other == options[0] for other in options)
    trained = {row: found[0].options for row, found in tasks.items()}
    nal, wrm = trained["nal-1.5"]["objective_option"], trained["wrm-1.5"]["objective_option"]
    passes = (nal["K"] + 1) * nal["s"], wrm["steps"] + 2
    assert passes == ((20, 17) if scale == "paper" else (10, 9))
    activations = {row: found["model_option"]["activation"] for row, found in trained.items()}
    assert all((activation == "elu") == ("elu" in row or "wrm" in row) for row, activation in activations.items())
    figure2 = {row: found[0] for row, found in plan(read_recipe("yang2021-figure2"), scale).tasks.items()}
    assert all(figure2[row].folder == tasks[row][0].folder for row in figure2), "trained once for both"


def test_attacks_are_answered_by_softmax(done):
    _, _, folders = done
    store = read_store(folders["attacked"])
    assert store.identity.procedure.raw == {"method": "softmax", "n": 50}
    assert all(outcome.abstained == 0 for outcome in outcomes(store))


def test_bounds_are_those_of_the_store(done):
    planned, out, folders = done
    run = Robustness.of(read_store(folders["bounded"]))
    comparison = compare_recipe(planned, out)
    lines = {line.setting: line for line in comparison.lines if line.step == "bounded"}
    assert list(lines) == ["certificate", "outside, estimate", "inside (rho with noise), estimate"]
    for setting, line in lines.items():
        assert (line.measure, line.images, line.row) == ("bound", run.images, ROW)
        kind = setting.partition(",")[0].partition(" ")[0]
        assert [(figure.at, figure.obtained) for figure in line.figures] == [
            (rho, run.at(rho)[kind]) for rho in (0, 0.01)]
    for render in (render_text, render_markdown):
        shown = render(comparison)
        assert "bounded, bound on the expected loss by transport cost rho" in shown
        assert up(run.at(0.01)["certificate"]) in shown
        assert "in its own units, rounded up" in shown
    first, *rest = [line for line in render_text(comparison).splitlines() if line.startswith(ROW)]
    assert len(rest) == 3, "one line for the attack, and one a bound, without intervals"
    assert first.startswith(f"{ROW}, m 2")
