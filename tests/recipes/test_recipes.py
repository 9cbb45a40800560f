"""Recipes: those that come with the package are whole; the mechanism plans, checks, runs, resumes and compares."""

import functools
import json
import tomllib
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, FileError, InputError, UnknownNameError
from smoothcert.progress import silent
from smoothcert.recipes.comparison import compare_recipe, render_markdown, render_text
from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import FOLDER, Recipe, read_recipe, recipe_names
from smoothcert.recipes.run import reproduce
from smoothcert.results.attacks import outcomes
from smoothcert.results.certified import Result
from smoothcert.results.predictions import Predicted
from smoothcert.store.store import read_store

known = functools.cache(read_recipe)

SMALL = """
name: small
title: two noise levels on the digits
source: none
parameters: {sigma: 0.25, model: $step.model}
steps:
  - name: model
    verb: train
    options: {data: digits, model: linear, epochs: 1, batch-size: 64, sigma: $row.sigma}
  - name: other
    verb: train
    options: {data: digits, model: linear, epochs: 1, sigma: $row.other_sigma}
  - name: certified
    verb: certify
    options: {model: $row.model, n0: 20, n: $row.n, method: cohen, every: 45, seed: 0}
  - name: again
    verb: recertify
    options: {store: $step.certified, method: two-sided}
rows:
  - {name: a, parameters: {n: 200}, expected: {certified: {accuracy: {0: .5, 0.25: .1}, acr: .2}}}
  - {name: b, parameters: {n: 300}}
  - {name: c, parameters: {n: 300, model: $step.other, other_sigma: 0.5}}
best:
  - {name: either, step: certified, rows: [a, c], accuracy: {0: .6}}
scales:
  paper: {about: seconds.}
  cpu: {about: less., parameters: {n: 100}, rows: {c: {n: 50}}, steps: {model: {epochs: 2, batch-size: null}}}
"""


def recipe(change=lambda content: None) -> Recipe:
    content = yaml.safe_load(SMALL)
    change(content)
    return Recipe.parse(content)


def watching(seen: list[tuple[str, list[str]]], stop_at: int | None = None):
    """Notes every task as it starts; the one numbered `stop_at` is interrupted at its first progress."""

    def interrupted(event):
        raise KeyboardInterrupt

    def watch(task, rows):
        seen.append((task.step, rows))
        return nullcontext(interrupted if len(seen) - 1 == stop_at else silent)

    return watch


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The small recipe, run whole; with the tasks in the order they ran."""
    out, seen = tmp_path_factory.mktemp("small"), []
    planned = plan(recipe())
    reproduce(planned, planned.tasks, out, {"threads": 1}, watching(seen))
    return planned, out, seen


# What comes with the package


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_can_be_planned_at_every_scale(name):
    found = known(name)
    assert found.name == name
    assert list(found.scales) == ["smoke", "cpu", "gpu" if name.startswith("cifar10-fast-") else "paper"]
    for scale in found.scales:
        planned = plan(found, scale)
        assert list(planned.tasks) == [row.name for row in found.rows]
        datasets = {task.options.get("data") for tasks in planned.tasks.values() for task in tasks}
        if scale == "smoke":
            assert datasets <= {"digits", None}


@pytest.mark.parametrize("name", recipe_names())
def test_printed_curves_are_fractions_and_fall_with_the_radius(name):
    found = known(name)
    printed = [figures for row in found.rows for figures in row.expected.values()]
    for curve in [*(figures.accuracy for figures in printed), *(best.accuracy for best in found.best)]:
        assert all(0 <= value <= 1 and radius >= 0 for radius, value in curve.items())
        assert all(left >= right for (_, left), (_, right) in pairwise(sorted(curve.items())))


def test_figures_are_those_of_the_papers():
    """Spot checks of the transcription: Feng et al., Cohen et al., Salman et al., Jeong & Shin."""
    def accuracy(name: str, row: str) -> dict[float, float]:
        return next(r for r in known(name).rows if r.name == row).expected["certified"].accuracy

    feng = known("feng2020-table1-cifar10")
    assert len(feng.rows) == 16
    assert accuracy("feng2020-table1-cifar10", "sigma-1-lambda-0.2")[1.5] == 0.16
    assert accuracy("feng2020-table1-cifar10", "basic-0.5")[1.75] == 0.05
    assert accuracy("feng2020-table1-imagenet", "sigma-0.5-lambda-0.1")[1] == 0.42
    assert accuracy("cohen2019-cifar10", "sigma-0.5") == {
        0: .65, 0.25: .55, 0.5: .41, 0.75: .32, 1: .23, 1.25: .15, 1.5: .09}
    assert accuracy("cohen2019-imagenet", "sigma-1")[3] == 0.12
    assert [best.accuracy[1] for best in known("salman2019-pretraining").best] == [0.38, 0.40, 0.37]
    assert known("salman2019-cifar10").best[0].accuracy[2.25] == 0.16
    assert known("salman2019-imagenet").best[0].accuracy[3.5] == 0.17
    later = {row.name: row.expected for row in known("mnist-later").rows}
    assert later["smoothadv-1"]["certified"].acr == 1.779


def test_rows_have_the_hyperparameters_of_the_papers():
    """Feng et al.: k = 1 at batch 256 beside k = 4 at batch 64 on ImageNet, batch 400 on CIFAR-10; Yang et al.: the
    rivals' eps at gamma 1.5, and WRM beside NAL on one network."""
    def trained(name: str) -> dict[str, dict]:
        return {row: tasks[0].options for row, tasks in plan(known(name), "paper").tasks.items()}

    imagenet = trained("feng2020-table1-imagenet")
    assert {(o["objective_option"].get("k"), o["batch_size"]) for o in imagenet.values()} == {
        (None, 256), (1, 256), (4, 64)}
    printed = {row.name for row in known("feng2020-table1-imagenet").rows if row.expected}
    assert all(imagenet[row]["batch_size"] == 256 for row in printed)
    assert {o["batch_size"] for o in trained("feng2020-figure1").values()} == {400}
    figure2, table1 = trained("feng2020-figure2"), trained("feng2020-table1-cifar10")
    assert figure2["basic-0.5"] == table1["basic-0.5"]
    assert figure2["adre-0.5"] == table1["sigma-0.5-lambda-0.1"]
    cifar = trained("yang2021-cifar10")
    assert {row: o["objective_option"]["eps"] for row, o in cifar.items() if "eps" in o["objective_option"]} == {
        "resnet18-smoothadv": .92, "resnet18-trades": .92, "vgg16-smoothadv": .57, "vgg16-trades": .57}
    for name in ("yang2021-mnist", "yang2021-cifar10", "yang2021-tiny-imagenet", "yang2021-figure1"):
        rows = trained(name)
        for row in (row for row in rows if "wrm" in row):
            assert rows[row]["model_option"] == rows[row.replace("wrm", "nal-elu")]["model_option"] == {
                "activation": "elu"}
    tightness = {task.step: task.options for task in plan(known("cohen2019-tightness"), "paper").tasks["sigma-0.25"]}
    assert tightness["certified"]["alpha"] == tightness["attacked"]["alpha"] == 0.01
    assert tightness["attacked"]["only_right"]
    assert (tightness["attacked"]["m"], tightness["attacked"]["steps"]) == ([1000], [20])
    assert tightness["attacked"]["attack_option"] == {"surrogate": "wrong", "step_size": 0.1}


@pytest.mark.parametrize("scale", ["smoke", "cpu", "gpu"])
def test_fast_recipes_share_training_and_differ_in_rows(scale):
    trained = {}
    for name in ("gaussian", "objectives", "t-certify", "distributional", "denoised", "attacks"):
        tasks = plan(known(f"cifar10-fast-{name}"), scale).tasks
        trained[name] = {row: {task.folder for task in found if task.verb == "train"} for row, found in tasks.items()}
        assert len({found[-1].folder for found in tasks.values()}) == len(tasks), "each row is a run of its own"
    gaussian, objectives, attacks = (trained[name] for name in ("gaussian", "objectives", "attacks"))
    first = set() if scale == "cpu" else gaussian["sigma-0.25"]  # there the first networks are the zoo's
    assert first == attacks["gaussian"] == trained["t-certify"]["gaussian-0.25"]
    assert first < objectives["sigma-0.25-smoothadv-eps-1"] == attacks["smoothadv"]
    assert objectives["sigma-0.5-adre"] == trained["t-certify"]["adre-0.5"]
    assert attacks["undefended"] == trained["distributional"]["nal-1.5"] & trained["denoised"]["sigma-0.25-direct"]


def test_the_fast_recipes_certify_networks_in_8_bits_on_a_cpu():
    for name in ("gaussian", "objectives", "t-certify"):
        for tasks in plan(known(f"cifar10-fast-{name}"), "cpu").tasks.values():
            quantised, certified = (
                next(task for task in tasks if task.verb == verb) for verb in ("quantise", "certify"))
            assert certified.needs == {quantised.folder}
        assert "quantise" not in {task.verb for tasks in plan(known(f"cifar10-fast-{name}"), "gpu").tasks.values()
                                  for task in tasks}


@pytest.mark.parametrize(("name", "budget"), [("objectives", 12), ("distributional", 30)])
def test_the_fast_recipes_compare_at_equal_cost(name, budget):
    """In passes over the images, of which an epoch takes as many as the objectives' own pages say."""
    passes = {
        "gaussian": lambda o: 1, "clean": lambda o: 1, "stability": lambda o: 2, "consistency": lambda o: o["m"],
        "smoothadv": lambda o: o["m"] * (o["steps"] + 1), "adre": lambda o: o["k"] * (o.get("steps", 0) + 1),
        "nal": lambda o: o["s"] * (o["K"] + 1), "wrm": lambda o: o["steps"] + 2, "trades": lambda o: o["steps"] + 2}
    for scale, times in (("cpu", 1), ("gpu", 5)):
        for row, tasks in plan(known(f"cifar10-fast-{name}"), scale).tasks.items():
            *before, model = [task.options for task in tasks if task.verb == "train"]
            if "half" not in row:
                assert passes[model["objective"]](model["objective_option"]) * model["epochs"] == budget * times, row
                continue
            images = model["max_images"] + (25000 if "unlabelled" in model else 0)
            teacher = before[0]["epochs"] * before[0]["max_images"] if before else 0
            assert model["epochs"] * images + teacher == 28 * 50000 * times, row


def test_the_l_inf_ball_lies_in_the_l2_ball_of_the_recipe():
    (best,) = known("salman2019-linf").best
    assert 0 <= max(best.accuracy) - 2 / 255 * np.sqrt(3072) < 1e-5


def test_the_wheel_and_the_sdist_hold_the_recipes():
    """Both take whole folders, the recipes lie in them, and nothing that is left out of the repository hides them."""
    root = Path(__file__).parents[2]
    target = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert target["wheel"] == {"packages": ["src/smoothcert"]}
    assert "/src" in target["sdist"]["include"]
    assert root / "src" / "smoothcert" / "recipes" == FOLDER
    ignored = [line for line in (root / ".gitignore").read_text().split() if "yaml" in line or "recipes" in line]
    assert not ignored
    others = [path for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"]
    assert len(recipe_names()) == len(others) >= 18


# Planning


def test_a_folder_is_named_by_what_is_done():
    tasks = plan(recipe()).tasks
    folders = {row: [task.folder for task in tasks[row]] for row in tasks}
    assert [task.step for task in tasks["a"]] == ["model", "certified", "again"]  # only c uses `other`
    assert folders["a"][0] == folders["b"][0] != folders["c"][0]
    assert not set(folders["a"][1:]) & set(folders["b"][1:])

    def changed(content):
        content["steps"][0]["options"]["lr"] = 0.2

    others = {row: [task.folder for task in tasks] for row, tasks in plan(recipe(changed)).tasks.items()}
    assert not set(folders["a"] + folders["b"]) & set(others["a"] + others["b"])
    assert others["c"] == folders["c"]

    def told_otherwise(content):
        content["name"] = content["title"] = content["rows"][0]["name"] = content["best"][0]["rows"][0] = "x"

    assert [task.folder for task in plan(recipe(told_otherwise)).tasks["x"]] == folders["a"]


def test_scales_change_parameters_then_rows_then_options():
    tasks = plan(recipe(), "cpu").tasks
    assert [tasks[row][1].options["n"] for row in "abc"] == [100, 100, 50]
    assert [tasks[row][0].options["epochs"] for row in "ac"] == [2, 1]
    assert "batch_size" not in tasks["a"][0].options  # null leaves an option out


def test_shared_tasks_are_run_once():
    planned = plan(recipe(), "cpu")
    runs = planned.runs(planned.tasks)
    assert [(task.step, rows) for task, rows in runs] == [
        ("model", ["a", "b"]), ("certified", ["a", "b"]), ("again", ["a", "b"]),
        ("other", ["c"]), ("certified", ["c"]), ("again", ["c"])]


def test_all_problems_at_once():
    def broken(content):
        content["steps"][0]["options"] |= {"objective": "adre", "objective-option": {"gamma": 1}, "threads": 2}
        content["steps"][2]["options"] |= {"metod": "cohen", "alpha": 2, "noise": "$row.nois", "model": "$step.again"}
        content["steps"][3] |= {"verb": "recertfy", "options": {"store": "$step.certifed"}}
        content["scales"]["paper"]["rows"] = {"d": {}}
        content["rows"][0]["expected"]["certfied"] = {}
        content["best"][0]["rows"] = ["a", "e"]
        del content["rows"][2]["parameters"]["n"]

    with pytest.raises(ConfigError) as caught:
        plan(recipe(broken))
    said = "\n".join(caught.value.problems)
    for words in (
        'unknown verb \'recertfy\' (did you mean "recertify"?)', "scale paper: unknown row 'd'",
        "row a, expected: unknown step 'certfied' (did you mean \"certified\"?)", "best either: unknown row 'e'",
        'step certified: metod: unknown option (did you mean "method"?)', "step certified: alpha: ",
        "step certified: $row.nois: the row has no parameter 'nois'", "step certified: $step.again: that step does not",
        "row c: step certified: $row.n: the row has no parameter 'n'", "step again: $step.certifed: there is no step",
        "step model: threads: depends on the machine", "step model: objective 'adre' has no option 'gamma'",
        "rows a, b: step other: $row.other_sigma: the row has no parameter",
    ):
        assert words in said
    assert len(caught.value.problems) == 13, said


@pytest.mark.parametrize(("options", "words"), [
    ({"objective": "adre", "objective_option": {"gamma": 1}}, "no option 'gamma'"),
    ({"objective": "adre", "objective_option": {"lam": 1}}, "lam must lie in"),
    ({"objective": "gausian"}, 'did you mean "gaussian"'),
    ({"out": "here"}, "out: depends on the machine"),
    ({"data_dir": "here"}, "data_dir: depends on the machine"),
    ({"epochs": "$ROW.epochs"}, r"must be $row.NAME"),
    ({"epochs": 0}, "epochs: "),
])
def test_options_of_a_training_step_are_checked(options, words):
    with pytest.raises(ConfigError, match="step model: ") as caught:
        plan(recipe(lambda content: content["steps"][0]["options"].update(options)))
    (problem,) = caught.value.problems
    assert words in problem


def test_a_denoiser_may_use_the_classifier_of_an_earlier_step():
    def denoised(content, classifier="$step.model"):
        content["steps"][1] = {"name": "other", "verb": "train", "options": {
            "data": "digits", "objective": "denoise", "objective-option": {"stability": 1}, "classifier": classifier,
            "sigma": "$row.other_sigma"}}
        content["steps"][2]["options"] |= {"model": "$step.model", "denoiser": "$row.model"}
        content["rows"] = content["rows"][2:]
        content["best"] = []
        content["scales"].pop("cpu")

    first, second, *_ = plan(recipe(denoised)).tasks["c"]
    assert second.needs == {first.folder}
    with pytest.raises(ConfigError, match="stability above 0 and classifier go together"):
        plan(recipe(lambda content: denoised(content, None)))


def test_a_recipe_measures_something():
    with pytest.raises(ConfigError, match="step model: no step that measures something uses it"):
        plan(recipe(lambda content: content.update(steps=content["steps"][:1], best=[], scales={"paper": {"about": ""}},
                                                   rows=[{"name": "a", "parameters": {"n": 1}}])))


def test_a_step_may_be_used_at_one_scale_alone():
    """A step that no scale uses is a slip; one that the scale at hand does without is not."""
    def spare(content, model="$step.spare"):
        (first, *_) = content["steps"]
        content["steps"].insert(1, {**first, "name": "spare", "options": {**first["options"], "batch-size": 32}})
        content["scales"]["cpu"].setdefault("steps", {}).setdefault("certified", {})["model"] = model

    assert "spare" not in {task.step for task in plan(recipe(spare)).tasks["a"]}
    assert "spare" in {task.step for task in plan(recipe(spare), "cpu").tasks["a"]}
    with pytest.raises(ConfigError, match="step spare: no step that measures something uses it"):
        plan(recipe(lambda content: spare(content, "$step.model")))


def test_bad_files_and_names(tmp_path):
    with pytest.raises(UnknownNameError, match="mnist-objectives"):
        read_recipe("mnist-objectivs")
    with pytest.raises(FileError, match="there is no recipe"):
        read_recipe(str(tmp_path / "none.yaml"))
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(FileError, match="YAML"):
        read_recipe(str(tmp_path / "evil.yaml"))
    (tmp_path / "half.yaml").write_text("name: half\nsteps: [{name: a}]\nrow: []\n")
    with pytest.raises(ConfigError) as caught:
        read_recipe(str(tmp_path / "half.yaml"))
    assert {problem.partition(":")[0] for problem in caught.value.problems} == {
        "title", "source", "rows", "scales", "steps.0.verb", "row"}
    with pytest.raises(InputError, match="its scales: paper, cpu"):
        plan(recipe(), "smoke")
    with pytest.raises(UnknownNameError, match="row of small 'd'"):
        reproduce(plan(recipe()), ["d"], tmp_path / "out", {}, watching([]))
    assert not (tmp_path / "out").exists()


def test_relative_image_paths_lie_in_the_data_folder(tmp_path):
    def with_folder(content):
        content["steps"][0]["options"] |= {"data": "imagefolder:images", "unlabelled": "parquet:/else/where.parquet",
                                           "pseudo_labels": "hf:some:model"}

    (task, *_) = plan(recipe(with_folder)).tasks["a"]
    config = task.configure(tmp_path, {"data_dir": Path("/data"), "threads": 3, "workers": 2})
    assert (config.data, config.unlabelled) == ("imagefolder:/data/images", "parquet:/else/where.parquet")
    assert (config.data_dir, config.threads, config.out) == (Path("/data"), 3, tmp_path / "steps" / task.folder)
    assert task.configure(tmp_path, {}).data == "imagefolder:images"


# Running and comparing


def test_every_task_runs_once_and_a_second_run_does_nothing(done):
    planned, out, seen = done
    assert [step for step, _ in seen] == ["model", *["certified", "again"] * 2, "other", "certified", "again"]
    assert seen[0] == ("model", ["a", "b"])
    again: list = []
    reproduce(planned, planned.tasks, out, {}, watching(again))
    assert not again


@pytest.mark.parametrize("stop_at", [0, 1])
def test_an_interrupted_run_goes_on_where_it_was(done, tmp_path, stop_at):
    planned, whole, _ = done
    first: list = []
    second: list = []
    with pytest.raises(KeyboardInterrupt):
        reproduce(planned, ["a"], tmp_path, {"threads": 1}, watching(first, stop_at))
    reproduce(planned, ["a"], tmp_path, {"threads": 1}, watching(second))
    assert [step for step, _ in second] == ["model", "certified", "again"][stop_at:]
    for task in planned.tasks["a"][1:]:
        ours, theirs = (read_store(task.path(folder)).records for folder in (tmp_path, whole))
        assert ours.equals(theirs)


def test_recertified_counts_are_the_same_counts(done):
    planned, out, _ = done
    _, certified, again = planned.tasks["a"]
    first, second = read_store(certified.path(out)), read_store(again.path(out))
    assert second.identity.procedure.method == "two-sided"
    assert first.identity.procedure.method == "cohen"
    assert first.records.column("tallies").equals(second.records.column("tallies"))


def test_the_comparison_is_what_the_stores_say(done):
    planned, out, _ = done
    comparison = compare_recipe(planned, out)
    by_row = {(line.row, line.step): line for line in comparison.lines}
    assert list(by_row) == [(row, step) for step in ("certified", "again") for row in "abc"]
    line = by_row["a", "certified"]
    store = read_store(planned.tasks["a"][1].path(out))
    radius, right = store.column("radius"), store.correct
    assert line.acr == pytest.approx(np.where(right, radius, 0).mean())
    assert [figure.expected for figure in line.figures] == [0.5, 0.1]
    for figure in line.figures:
        count = int((right & (radius >= figure.at)).sum())
        exact = stats.binomtest(count, len(right)).proportion_ci(0.95, "exact")
        assert figure.obtained == count / len(right)
        assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high), rel=1e-9)
        assert figure.out_of_reach == Result.of(store).is_out_of_reach(figure.at)
    metrics = (planned.tasks["a"][0].path(out) / "metrics.jsonl").read_text().splitlines()
    assert line.seconds == pytest.approx(sum(json.loads(epoch)["seconds"] for epoch in metrics))
    (best,) = comparison.best
    first = [by_row[row, "certified"].figures[0].obtained for row in "ac"]
    assert (best.rows, best.of, best.figures[0].obtained, best.figures[0].expected) == (2, 2, max(first), 0.6)


def test_a_radius_out_of_reach_has_a_dash(done):
    planned, out, _ = done
    comparison = compare_recipe(planned, out)
    beyond = [replace(line, figures=(*line.figures[:-1], replace(line.figures[-1], out_of_reach=True)))
              for line in comparison.lines]
    said = render_text(replace(comparison, lines=tuple(beyond)))
    rows = [line.split() for line in said.splitlines()]
    assert [row[-1] for row in rows if "obtained" in row or "95%" in row] == ["-"] * 2 * len(beyond)
    assert "could not have proved this radius" in said


def test_radii_that_a_run_did_not_decide_are_left_out(tmp_path):
    def deciding(content):
        del content["steps"][1], content["steps"][2:], content["best"], content["scales"]["cpu"]
        content["steps"][1]["options"].update({"n0": None, "n": None, "n-max": 200, "radii": "$row.radii"})
        content["rows"] = [{"name": name, "parameters": {"radii": radii}, "expected": {"certified": {"acr": 1}}}
                           for name, radii in (("one", [0.1]), ("all", [0, 0.1, 0.2]))]

    planned = plan(recipe(deciding))
    reproduce(planned, planned.tasks, tmp_path, {"threads": 1}, watching([]))
    found = {line.row: [figure.at for figure in line.figures] for line in compare_recipe(planned, tmp_path).lines}
    assert found == {"one": [0.1], "all": [0, 0.1, 0.2]}


def test_attacks_are_read_by_eps_or_by_multiple_of_the_radius(tmp_path):
    """Accuracy under attack for every m and n, and the share of changed answers, which at 8 R is not 0."""
    def attacked(content):
        shared = {"model": "$step.model", "m": [0, 2], "steps": [2], "n": [50, 100], "seed": 0}
        by_eps, by_radius = {"eps": [0.25, 0.5], "every": 45}, {"eps-from": "$step.certified", "times": [1, 8]}
        content["steps"][3:] = [{"name": name, "verb": "attack", "options": {**shared, **options}}
                                for name, options in (("by-eps", by_eps), ("by-radius", by_radius))]
        content["rows"][0]["expected"] = {"by-radius": {"changed": {8: 0.5}}}
        content["rows"][1:], content["best"] = [], []
        content["steps"].pop(1)
        content["scales"].pop("cpu")

    planned = plan(recipe(attacked))
    reproduce(planned, ["a"], tmp_path, {"threads": 1}, watching([]))
    comparison = compare_recipe(planned, tmp_path)
    lines = {(line.step, line.setting): line for line in comparison.lines if line.verb == "attack"}
    assert list(lines) == [(step, f"m {m}, T 2, n {n}") for step in ("by-eps", "by-radius") for m in (0, 2)
                           for n in (50, 100)]
    for task in planned.tasks["a"][2:]:
        for outcome in outcomes(read_store(task.path(tmp_path))):
            for (step, setting), line in lines.items():
                if step == task.step and setting == f"m {outcome.m}, T {outcome.steps}, n {outcome.n}":
                    figure = next(f for f in line.figures if f.at == outcome.size)
                    assert figure.obtained == pytest.approx(getattr(outcome, line.measure))
    assert [f.at for f in lines["by-eps", "m 2, T 2, n 100"].figures] == [0, 0.25, 0.5]
    last = lines["by-radius", "m 2, T 2, n 100"]
    assert (last.measure, last.figures[-1].at, last.figures[-1].expected) == ("changed", 8, 0.5)
    assert last.figures[-1].obtained > 0
    assert "by-radius, answers changed by attack" in render_text(comparison)


def test_predictions_have_a_line_for_every_n(tmp_path):
    def predicting(content):
        content["steps"][3] = {"name": "predicted", "verb": "predict", "options": {
            "model": "$step.model", "n": [50, 200], "every": 45, "seed": 0}}
        content["rows"] = [{**content["rows"][0], "expected": {"predicted": {"accuracy": {0: .5}, "abstained": .1}}}]
        content["best"] = []
        content["steps"].pop(1)
        content["scales"].pop("cpu")

    planned = plan(recipe(predicting))
    reproduce(planned, ["a"], tmp_path, {"threads": 1}, watching([]))
    lines = [line for line in compare_recipe(planned, tmp_path).lines if line.step == "predicted"]
    assert [line.setting for line in lines] == ["n 50", "n 200"]
    assert [line.figures[0].expected for line in lines] == [None, 0.5]
    looks = Predicted.of(read_store(planned.tasks["a"][2].path(tmp_path))).looks
    assert [line.figures[0].obtained for line in lines] == [look.correct.mean() for look in looks]


def test_rows_finished_earlier_are_compared_too(tmp_path):
    planned = plan(recipe())
    for rows, lines in ((["c"], ["c"]), (["a"], ["a", "c"])):
        reproduce(planned, rows, tmp_path, {"threads": 1}, watching([]))
        assert [line.row for line in compare_recipe(planned, tmp_path).lines if line.step == "certified"] == lines


def test_rows_that_became_one_run_are_one_line_named_so(tmp_path):
    """At scale cpu rows a and b of the small recipe are the same run; c is another."""
    planned = plan(recipe(lambda content: content["rows"][1].update(
        expected={"certified": {"accuracy": {0: .5, 0.25: .2}}})), "cpu")
    reproduce(planned, planned.tasks, tmp_path, {"threads": 1}, watching([]))
    comparison = compare_recipe(planned, tmp_path)
    lines = [line for line in comparison.lines if line.step == "certified"]
    assert [(line.row, line.rows) for line in lines] == [("a = b", ("a", "b")), ("c", ("c",))]
    assert [figure.expected for figure in lines[0].figures] == [0.5, None], "the figures on which both agree"
    assert lines[0].expected_acr == 0.2
    (best,) = comparison.best
    assert (best.rows, best.of) == (2, 2)
    for render in (render_text, render_markdown):
        assert "Equal rows are one run at this scale, trained and measured once: a = b." in render(comparison)
    assert [line["row"] for line in comparison.to_json()["lines"]] == ["a = b", "c"] * 2


def test_the_best_of_equal_rows_counts_runs(tmp_path):
    """Five rows that are two runs: "best of 1 of 2 runs" while one is done."""
    def five(content):
        content["rows"] = [{"name": f"r{n}", "parameters": {"n": 50 + 50 * (n // 3)}} for n in range(5)]
        content["best"] = [{"name": "best", "step": "certified", "rows": [f"r{n}" for n in range(5)], "accuracy": {}}]
        content["steps"].pop(1)
        content["scales"].pop("cpu")

    planned = plan(recipe(five))
    reproduce(planned, ["r1"], tmp_path, {"threads": 1}, watching([]))
    comparison = compare_recipe(planned, tmp_path)
    assert [line.row for line in comparison.lines] == ["r0 = 2 more"] * 2
    assert "best of 1 of 2 runs" in render_text(comparison)
    assert "r0 = r1 = r2" in render_text(comparison)


def test_words_say_whose_figures_they_are(done):
    planned, out, _ = done
    for render in (render_text, render_markdown):
        said = render(compare_recipe(planned, out))
        assert "need not agree" not in said
        assert "lies outside the interval" in said
        assert "best of 2 of 2 runs" in said
        assert "Equal rows" not in said
    cpu = plan(recipe(), "cpu")
    assert "The paper's figures belong to scale paper: they need not agree." in render_text(compare_recipe(cpu, out))
    assert "lies outside" not in render_text(compare_recipe(cpu, out))


def test_without_a_paper_scale_figures_are_of_another_network(done):
    def fast(content):
        content["scales"]["gpu"] = content["scales"].pop("paper")

    for render in (render_text, render_markdown):
        said = render(compare_recipe(plan(recipe(fast), "gpu"), done[1]))
        assert "The paper's figures are of another network, which the source names: they need not agree." in said
        assert "scale paper" not in said
        assert "lies outside" not in said


# The command


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(app, ["reproduce", *map(str, arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def test_the_list_names_recipes_rows_and_costs():
    listed = run().output
    assert all(name in listed for name in recipe_names())
    one = run("mnist-objectives", "--list").output
    assert "gaussian, consistency, adre" in one
    assert one.count("smoke:") == 1
    (told,) = json.loads(run("mnist-objectives", "--list", "--json").output)
    assert told["rows"][2]["parameters"]["objective_option"] == {"k": 4, "lam": 0.1}


@pytest.mark.slow
def test_mnist_objectives_at_scale_smoke(tmp_path):
    rows, out = ("gaussian", "adre", "smoothadv"), tmp_path / "out"
    shown = run("mnist-objectives", "--scale", "smoke", "--row", ",".join(rows), "--threads", "1", "-o", out)
    assert "1.558" in shown.output
    assert "need not agree" in shown.output
    assert "model of adre: train" in shown.stderr
    told = json.loads((out / "reproduced.json").read_text())
    assert [line["row"] for line in told["lines"]] == ["gaussian", "adre", "smoothadv"]
    assert not told["comparable"]
    assert all(line["seconds"] > 0 and line["images"] == 12 for line in told["lines"])
    assert "| gaussian | paper |" in (out / "reproduced.md").read_text()
    again = run("mnist-objectives", "--scale", "smoke", "--row", ",".join(rows), "-q", "--json", "-o", out)
    assert json.loads(again.output) == told
    assert "train" not in again.stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (["mnist-objectivs"], "mnist-objectives"),
    (["mnist-objectives", "--row", "adree"], "adre"),
    (["mnist-objectives", "--scale", "large"], "smoke"),
])
def test_bad_requests_say_what_is_known(tmp_path, arguments, words):
    assert words in run(*arguments, "-o", tmp_path / "out", code=2).stderr
    assert not (tmp_path / "out").exists()
