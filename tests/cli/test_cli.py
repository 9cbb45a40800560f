"""The command line: verbs, exit codes, JSON, configs, and errors in plain words."""

import csv
import io
import json
import os
import shlex
import subprocess
import sys
import warnings
from glob import glob
from pathlib import Path
from typing import Annotated, get_args, get_origin

import numpy as np
import pytest
from pydantic import TypeAdapter
from typer.main import get_command
from typer.testing import CliRunner

from smoothcert.bundles.options import BundleConfig
from smoothcert.cli.certify import CertifyTableConfig
from smoothcert.cli.demo import DemoConfig, find_program
from smoothcert.cli.main import app, main
from smoothcert.cli.transfer import TransferTableConfig
from smoothcert.errors import ConfigError
from smoothcert.hub.options import PullConfig, PushConfig
from smoothcert.progress import Event
from smoothcert.progress.bars import PlainLines
from smoothcert.quantisation.options import QuantiseConfig
from smoothcert.recipes.options import ReproduceConfig
from smoothcert.recipes.recipe import Expected
from smoothcert.report.options import (
    CheckConfig,
    CompareConfig,
    CostConfig,
    ExportConfig,
    InfoConfig,
    LabelBestConfig,
    PlanConfig,
    RecertifyTableConfig,
    ReportConfig,
    RouteConfig,
    TableConfig,
)
from smoothcert.report.plots.kinds import KINDS
from smoothcert.runs.options import AttackConfig, CertifyConfig, DistributionalConfig, PredictConfig
from smoothcert.selftest.options import SelftestConfig
from smoothcert.stats import average_certified_radius
from smoothcert.store.store import read_store
from smoothcert.training.options import TrainConfig
from smoothcert.verify.options import VerifyConfig
from stores import made

CLI = str(Path(sys.executable).parent / "smoothcert")


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    run("train", "--model", "linear", "--data", "digits", "--sigma", "0.25", "--epochs", "8", "-q", "-o", folder / "m")
    run("certify", folder / "m", "--n", "1000", "--max-images", "30", "--seed", "0", "-q", "-o", folder / "s")
    return folder


RAW = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202e\x7f\r\nACR 9.999"


@pytest.mark.parametrize("verb", [
    ["info"], ["table"], *(["table", "--format", style] for style in ("markdown", "csv", "latex")), ["verify"],
    ["recertify", "--alpha", "0.01"], ["compare", "OTHER"], ["check", "--require", "acr >= 0"],
    ["info", "--json"], ["table", "--json"],
    ["verify", "--json"], ["cost"], ["recertify", "--method", "x\x1b[0m"],
    ["plot", "-k", "x\x1b[0m", "-o", "no.png"],
])
def test_what_a_stranger_named_never_reaches_the_terminal_raw(tmp_path, verb):
    """Names, notes, folders, and whatever of them errors repeat, in every verb, on both streams."""
    told = {"notes": [RAW], "model": RAW, "versions": {RAW: RAW}, "machine": {"system": RAW}}
    store = made(tmp_path / f"evil\x1b[31m\x9b\n{'x'}", told=told, engine=RAW, space=RAW)
    other = str(made(tmp_path / "other", seed=1, told=told))
    given = [part.replace("OTHER", other) for part in verb[1:]]
    result = CliRunner().invoke(app, [verb[0], str(store), *given])
    assert result.exit_code in (0, 1, 2), result.exception
    for stream in (result.stdout, result.stderr):
        assert not set(stream) & set("\x1b\x9b\x07\x7f\r\u202e")
        assert not any(line.startswith("ACR 9.999") for line in stream.splitlines())
    if verb == ["info"] or verb == ["table"]:
        assert "\\x1b[31mred" in result.stdout


def test_an_error_repeats_no_control_character(tmp_path):
    result = run("info", tmp_path / "no\x1b[31m", code=1)
    assert "\x1b" not in result.stderr
    assert "\\x1b[31m" in result.stderr


def test_progress_obeys_neither_markup_nor_control_characters():
    written = io.StringIO()
    lines = PlainLines(written, iter(range(0, 1000, 10)).__next__)
    lines(Event("sampling", 1, 2, "images", words="[bold]a\x1b[31m[/nothing]"))
    lines.tick()
    lines.close()
    assert "[bold]a\\x1b[31m[/nothing]" in written.getvalue()


def test_a_warning_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(sys, "argv", ["smoothcert", "--version"])
    with pytest.raises(SystemExit):
        main()
    warnings.warn("mind this", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: mind this\n"


def test_help_is_quick_and_loads_no_torch():
    command = [sys.executable, "-X", "importtime", "-c", "from smoothcert.cli.main import main; main()", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "certify" in done.stdout
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert not loaded & {"torch", "matplotlib", "scipy", "pyarrow", "sklearn"}
    assert _seconds([CLI, "--help"]) < 3, "1 s on a quiet machine; the bound here only catches a heavy import"


def _seconds(command) -> float:
    """Of processors, which other work on the machine does not lengthen."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


VERBS = {
    "train": TrainConfig, "certify": CertifyTableConfig, "predict": PredictConfig, "attack": AttackConfig,
    "distributional": DistributionalConfig, "table": TableConfig, "compare": CompareConfig, "check": CheckConfig,
    "info": InfoConfig,
    "export": ExportConfig, "recertify": RecertifyTableConfig, "cost": CostConfig, "report": ReportConfig,
    "reproduce": ReproduceConfig, "verify": VerifyConfig, "selftest": SelftestConfig, "demo": DemoConfig,
    "push": PushConfig, "pull": PullConfig, "quantise": QuantiseConfig, "transfer": TransferTableConfig,
    "bundle": BundleConfig, "plan": PlanConfig, "route": RouteConfig, "label-best": LabelBestConfig,
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_field_is_an_option_with_its_words_and_default(verb):
    shown = " ".join(CliRunner().invoke(app, [verb, "--help"]).output.replace("│", " ").split())
    for name, field in VERBS[verb].model_fields.items():
        argument = (field.json_schema_extra or {}).get("argument")
        assert (f" {argument} " if argument else "--" + name.replace("_", "-")) in shown
        assert field.description.split("(")[0].split()[0] in shown
    assert "(default: 0.001)" in shown or verb not in ("certify", "predict")
    assert "--config" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_with_one_value_is_given_twice(verb):
    """All of them are named at once; the second would silently replace the first."""
    once = ["config", *(name for name, field in VERBS[verb].model_fields.items()
                        if field.annotation is not bool and get_origin(field.annotation) is not dict
                        and not {"argument", "repeatable"} & (field.json_schema_extra or {}).keys())]
    said = run(verb, *(word for name in once for value in "ab" for word in ("--" + name.replace("_", "-"), value)),
               code=2).stderr
    assert f"{len(once)} mistakes in the options" in said
    for name in once:
        assert f"- {name}: is given 2 times (a, b): give it once" in said


@pytest.mark.parametrize(("arguments", "words"), [
    (["table", "s", "--radii", "0.5", "--radii", "1"], "radii: is given 2 times (0.5, 1): give it once, with commas"),
    (["table", "s", "-o", "a", "--out", "b"], "out: is given 2 times (a, b)"),
    (["plot", "curve", "s", "--title", "a", "--title", "b"], "title: is given 2 times (a, b)"),
    (["certify", "m", "--claim", "rho=0.1", "--claim", "rho=0.2"], "claim: give each KEY once, got rho several times"),
])
def test_what_is_given_twice_is_refused_in_words(arguments, words):
    assert words in run(*arguments, code=2).stderr


@pytest.mark.parametrize(("verb", "options"), [
    ("certify", ("radii", "indices", "bounds", "mean", "features", "log-to")),
    ("attack", ("eps", "m", "steps", "n")), ("distributional", ("rho", "gamma")), ("predict", ("n",)),
    ("reproduce", ("row",)),
])
def test_a_list_has_no_empty_part(verb, options):
    """A comma too many may stand for a value that was forgotten."""
    said = run(verb, "x", *(word for name in options for word in (f"--{name}", "1,,2")), code=2).stderr
    for name in options:
        assert f"{name.replace('-', '_')}: part 2 of the list '1,,2' is empty" in said


def test_what_may_be_given_several_times_stays_so(work):
    said = run("check", work / "s", "--require", "acr >= 0", "--require", "accuracy@0 >= 0").stdout
    assert "acr" in said
    assert "accuracy" in said


def test_every_verb_has_a_configuration_and_takes_a_file(work, tmp_path):
    assert {*VERBS, "plot"} == set(get_command(app).commands)
    file = tmp_path / "c.yaml"
    file.write_text(f"stores: [{work / 's'}]\nradii: [0, 0.25]\nformat: csv\nrho: 1/10\n")
    assert (run("table", "--config", file).output
            == run("table", work / "s", "--radii", "0,0.25", "--format", "csv", "--rho", "0.1").output)
    file.write_text(f"stores: {work / 's'}\nradii: a\nformat: latx\nrho: 2\nmrege: true\n")
    said = run("table", "--config", file, "--dimension", "0", code=2).stderr
    for part in ("5 mistakes", "radii.0", "'latex'", "rho", "merge", "dimension"):
        assert part in said
    file.write_text(f"store: {work / 's'}\nalpha: 1/100\nmethod: cohen\n")
    assert "0.01" in run("recertify", "--config", file, "--json").output
    file.write_text("images: 1000\nn: 100\nrate: 5\n")
    assert json.loads(run("cost", "--config", file, "--machines", "2", "--json").output)["seconds"] > 0


def test_version():
    assert run("--version").output.startswith("smoothcert 0.")


def test_certify_prints_a_table_and_resumes(work):
    first = run("certify", work / "m", "--n", "1000", "--max-images", "30", "--seed", "0", "-q", "-o", work / "s")
    assert "certified accuracy" in first.output
    assert "ACR" in first.output


def test_json_is_what_the_store_says(work):
    told = json.loads(run("table", work / "s", "--radii", "0,0.25", "--json").output)[0]
    store = read_store(work / "s")
    assert told["acr"] == average_certified_radius(store.column("radius"), store.correct)
    assert told["accuracy"] == [float(np.mean(store.correct & (store.column("radius") >= r))) for r in (0, 0.25)]
    assert told["images"] == 30
    again = json.loads(run("certify", work / "m", "--n", "1000", "--max-images", "30", "--seed", "0", "-q", "--json",
                           "--radii", "0,0.25", "-o", work / "s").output)
    assert again["accuracy"] == told["accuracy"]


def test_formats_say_the_same(work):
    told = json.loads(run("table", work / "s", "--radii", "0.1,0.3", "--json").output)[0]
    lines = list(csv.DictReader(io.StringIO(run("table", work / "s", "--radii", "0.1,0.3", "--format", "csv").output)))
    assert [float(line["accuracy"]) for line in lines] == told["accuracy"]
    assert [float(line["test_set"]) for line in lines] == told["test_set"]
    percent = f"{int(told['accuracy'][0] * 1000 + 1e-9) / 10:.1f}"
    for style in ("text", "markdown", "latex"):
        assert percent in run("table", work / "s", "--radii", "0.1,0.3", "--format", style).output


def test_recertify_needs_no_torch(work):
    code = ("import sys; from smoothcert.cli.main import app; app(standalone_mode=False); "
            "assert 'torch' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, "recertify", str(work / "s"), "--alpha", "0.01", "--method", "cohen"],
                   check=True, capture_output=True)


def test_recertify_and_keep(work):
    run("recertify", work / "s", "--alpha", "0.05", "--method", "cohen", "-o", work / "again")
    again = read_store(work / "again")
    assert again.identity.procedure.alpha == 0.05
    assert (again.column("radius") >= read_store(work / "s").column("radius")).mean() > 0.5
    run("table", work / "s", work / "again", "--radii", "0.5")


def test_predict_and_info(work):
    told = json.loads(run("predict", work / "m", "--n", "200", "--max-images", "10", "-q", "--json", "-o",
                          work / "p").output)
    assert 0 <= told["accuracy"] <= 1
    assert json.loads(run("info", work / "p", "--json").output)["is"] == "predict store"
    assert "model directory" in run("info", work / "m").output
    assert "two-sided" in run("info", work / "s").output
    assert "abstained" in run("table", work / "p").output


def test_out_writes_a_file(work):
    run("table", work / "s", "--format", "markdown", "-o", work / "sub" / "table.md")
    assert (work / "sub" / "table.md").read_text().startswith("| run |")


def test_merge(work):
    for name, start, every in (("a", "0", "24"), ("b", "12", "24"), ("both", "0", "12")):
        run("certify", work / "m", "--n", "1000", "--start", start, "--every", every, "--seed", "0", "-q", "-o",
            work / name)
    merged = json.loads(run("table", work / "a", work / "b", "--merge", "--radii", "0.1", "--json").output)
    whole = json.loads(run("table", work / "both", "--radii", "0.1", "--json").output)
    assert len(merged) == 1
    assert merged[0]["images"] == 30
    assert merged[0]["claimed"] == whole[0]["claimed"]
    assert "same images" in run("table", work / "a", work / "both", "--merge", code=2).stderr


def test_yaml_and_flags(work, tmp_path):
    (tmp_path / "c.yaml").write_text(f"model: {work / 'm'}\nn: 300\nmax-images: 5\nsigma: 0.5\nseed: 0\n")
    run("certify", "--config", tmp_path / "c.yaml", "--sigma", "0.25", "-q", "-o", tmp_path / "s")
    store = read_store(tmp_path / "s")
    assert store.identity.noise.sigma == 0.25
    assert store.identity.procedure.n == 300


def test_all_mistakes_of_a_yaml_file_at_once(tmp_path):
    (tmp_path / "c.yaml").write_text("sgima: 0.5\nalpha: 7\nn: many\nmethod: cohn\nout: s\n")
    said = run("certify", "--config", tmp_path / "c.yaml", code=2).stderr
    for part in ("5 mistakes", 'did you mean "sigma"', "alpha", "many", 'did you mean "cohen"', "model: is required"):
        assert part in said
    (tmp_path / "evil.yaml").write_text("model: !!python/object/apply:os.system ['true']\n")
    assert "YAML" in run("certify", "--config", tmp_path / "evil.yaml", code=1).stderr


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["certify"], 2, "model: is required"),
    (["certify", "{m}", "--sigma", "-1", "-o", "{new}"], 2, "sigma"),
    (["certify", "{m}", "--sgima", "1"], 2, "No such option"),
    (["certify", "{new}", "-o", "{new}2"], 1, "no model folder"),
    (["certify", "{m}", "--sigma", "0.5", "--n", "1000", "--max-images", "30", "-o", "{s}"], 1, "noise.sigma"),
    (["certify", "{m}", "--data", "parquet:{new}.parquet", "-o", "{new}2"], 1, "new.parquet"),
    (["certify", "{m}", "--task", "multi-label", "--intervals", "all", "-o", "{new}"], 2, "intervals chooses among"),
    (["train", "--objective", "gausian", "-o", "{new}"], 2, "gaussian"),
    (["train", "--model", "lenett", "--sigma", "1", "-o", "{new}"], 2, "lenet"),
    (["table", "{new}"], 1, "no store"),
    (["table", "{s}", "--radii", "a,b"], 2, "radii"),
    (["table", "{s}", "--radii=-1"], 2, "radii"),
    (["table", "{s}", "--format", "latx"], 2, "latex"),
    (["table", "{s}", "--rho", "2"], 2, "rho"),
    (["recertify", "{s}", "--alpha", "0"], 2, "alpha"),
    (["recertify", "{s}", "--method", "bernstein"], 2, "method"),
    (["info", "{new}"], 1, "there is no"),
    (["nonsense"], 2, "No such command"),
])
def test_exit_codes_and_words(work, tmp_path, arguments, code, words):
    names = {"{m}": work / "m", "{s}": work / "s", "{new}": tmp_path / "new"}
    for mark, path in names.items():
        arguments = [a.replace(mark, str(path)) for a in arguments]
    result = run(*arguments, code=code)
    assert words in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_full_disk(work):
    """/dev/full takes no byte: an output that cannot be written says so and exits with 1."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    Path(work / "full.csv").unlink(missing_ok=True)
    Path(work / ".full.csv.tmp").symlink_to("/dev/full")
    assert "disk is full" in run("table", work / "s", "--format", "csv", "-o", work / "full.csv", code=1).stderr
    assert not (work / "full.csv").exists()


def test_the_program_is_named_so_that_a_shell_finds_it(tmp_path, monkeypatch):
    folder = tmp_path / "my venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "smoothcert"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program() == "'my venv/bin/smoothcert'"
    monkeypatch.chdir(folder)
    assert find_program() == "./smoothcert"
    monkeypatch.chdir("/")
    monkeypatch.setenv("PATH", str(folder))
    assert find_program() == "smoothcert"
    (folder / "smoothcert").unlink()
    assert find_program() == f"'{folder}/python' -m smoothcert"


@pytest.mark.slow
def test_demo(tmp_path, monkeypatch):
    """As it is but for two options: on every ninth image, and without a trial of engines."""
    parse = CertifyConfig.parse
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as changed:
        changed.setattr(CertifyConfig, "parse", lambda told: parse({**told, "every": 9, "engine": "eager"}))
        result = run("demo", "-o", "my d", "-q")
    assert "certified accuracy" in result.output
    commands = [line for line in result.output.split("What to try next:")[1].splitlines() if line.startswith("  ")]
    assert len(commands) == 5
    for command in commands:  # but for the images, of which there are few here
        few = ["--every", "60", "--engine", "eager"] if " certify " in command else []
        program, *words = shlex.split(command)
        assert Path(program).name == "smoothcert"
        run(*(path for word in words for path in sorted(glob(word)) or [word]), *few)
    done = subprocess.run(["bash", "-c", commands[0]], check=False, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, f"{commands[0]}\n{done.stderr}"
    assert (tmp_path / "my d" / "report.html").stat().st_size > 50_000
    (tmp_path / "my d").rename(tmp_path / "d")
    assert (tmp_path / "d" / "curve.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "d" / "curve.svg").read_text()
    told = json.loads(run("table", tmp_path / "d" / "store", "--radii", "0,0.25", "--json").output)[0]
    assert told["accuracy"][0] > 0.9
    assert told["accuracy"][1] > 0.75


def test_a_printed_configuration_is_the_one_that_was_given(tmp_path):
    words = ["certify", "net.py:build", "--sigma", "64/255", "--radii", "0.5,1", "--n-max", "1000", "--front-option",
             "sigma2=0.1", "--walk-jump", "w", "-o", tmp_path / "s", "--print-config"]
    printed = run(*words).stdout
    (tmp_path / "c.yaml").write_text(printed)
    assert run("certify", "--config", tmp_path / "c.yaml", "--print-config").stdout == printed
    config = CertifyConfig.gather({}, tmp_path / "c.yaml")
    assert (config.sigma, config.radii, config.n_max, config.front_option) == (64 / 255, (0.5, 1.0), 1000,
                                                                            {"sigma2": 0.1})
    assert "# alpha: 0.001\n" in printed
    assert not (tmp_path / "s").exists()
    assert "mistake" in run("certify", "m", "--sigma", "-1", "-o", "s", "--print-config", code=2).stderr
    with pytest.raises(ConfigError, match="object"):
        CertifyConfig(model="m", out="s", denoiser=object()).to_yaml()


@pytest.mark.parametrize(("words", "option", "part"), [
    (["certify", "m", "-o", "s"], "noise", "smoothcert.noise:GridNoise"),
    (["train", "--sigma", "0.25", "-o", "m"], "objective", "smoothcert.objectives:Gaussian"),
    (["attack", "m", "--eps", "0.5", "-o", "a"], "attack", "smoothcert.attacks:PGD"),
])
def test_a_printed_configuration_keeps_the_place_of_a_part(tmp_path, words, option, part):
    module, _, name = part.partition(":")
    own = tmp_path / "elsewhere" / "own.py"
    own.parent.mkdir()
    own.write_text(f"from {module} import {name} as Own\n")
    printed = run(*words, f"--{option}", f"{own}:Own", "--print-config").stdout
    assert f"{option}: {own}:Own\n" in printed
    (tmp_path / "c.yaml").write_text(printed)
    assert run(words[0], "--config", tmp_path / "c.yaml", "--print-config").stdout == printed


def test_a_printed_default_can_be_uncommented():
    printed = run("certify", "m", "--sigma", "0.25", "-o", "s", "--print-config").stdout
    assert "# model-option: {}\n" in printed


def test_the_shell_completes(monkeypatch):
    assert run("-V").stdout == run("--version").stdout
    assert "_SMOOTHCERT_COMPLETE" in run("--show-completion", "bash").stdout


def test_numbers_are_read_as_people_write_them(tmp_path):
    options = TrainConfig.parse({"out": "m", "objective_option": ["a=1e-3", "b=-.5", "c=2", "d=null", "e=word"]})
    assert options.objective_option == {"a": 0.001, "b": -0.5, "c": 2, "d": None, "e": "word"}
    (tmp_path / "c.yaml").write_text("objective-option: {a: 1E5, b: 1e-3}")
    read = TrainConfig.gather({"out": "m"}, tmp_path / "c.yaml").objective_option
    assert read == {"a": 1e5, "b": 0.001}
    assert all(type(value) is float for value in read.values())
    with pytest.raises(ConfigError, match=r"objective_option.*YAML"):
        TrainConfig.parse({"out": "m", "objective_option": ["a=[1,"]})




def _reals(kind) -> bool:
    """Whether float is among the types that an annotation is made of."""
    return kind is float or any(_reals(part) for part in get_args(kind))


def test_every_number_that_is_no_count_may_be_a_fraction():
    configurations = {*VERBS.values(), *(kind.options for kind in KINDS.values())}
    fields = {(kind.__name__, name): Annotated[field.annotation, *field.metadata, name]
              for kind in configurations for name, field in kind.model_fields.items() if _reals(field.annotation)}
    found = {name: TypeAdapter(kind).validate_python("1 / 4") for name, kind in fields.items()}
    assert {("CertifyTableConfig", "sigma"), ("AttackConfig", "eps"), ("CertifyTableConfig", "margin"),
            ("DistributionalConfig", "rho"), ("TrainConfig", "lr"), ("TableConfig", "radii"), ("CostConfig", "price"),
            ("ProjectionPlot", "alpha"), ("PanelsPlot", "sigma")} <= found.keys()
    assert all(value in (0.25, (0.25,)) for value in found.values()), found


def test_fractions_are_kept_as_floats(work, tmp_path):
    (tmp_path / "c.yaml").write_text("radii: [64/255, 0.5]\nsigma: 64/255\n")
    options = [work / "m", "--n", "100", "--max-images", "3", "--seed", "0", "-q"]
    run("certify", *options, "--config", tmp_path / "c.yaml", "-o", tmp_path / "s")
    assert read_store(tmp_path / "s").identity.noise.sigma == 64 / 255
    told = json.loads(run("table", tmp_path / "s", "--radii", "64/255,.5", "--rho", "1/20", "--json").output)[0]
    assert (told["radii"], told["rho"]) == ([64 / 255, 0.5], 0.05)
    told = json.loads(run("recertify", tmp_path / "s", "--alpha", "1/100", "--margin", "1/20", "--json").output)
    assert (told["alpha"], told["margin"]) == (0.01, 0.05)
    told = json.loads(run("cost", "--images", "10", "--n", "100", "--rate", "5/2", "--json").output)
    assert told == json.loads(run("cost", "--images", "10", "--n", "100", "--rate", "2.5", "--json").output)
    options = [*options, "--eps", "8/255", "--m", "1", "--steps", "1", "--attack-option", "step_size=2/255"]
    run("attack", *options, "-o", tmp_path / "a")
    attack = read_store(tmp_path / "a").identity.attack
    assert 8 / 255 in attack.eps
    assert attack.options["step_size"] == 2 / 255
    assert Expected.parse({"accuracy": {"2/255": "1/2"}}).accuracy == {2 / 255: 0.5}
    given = {"sigmas": ["1/4", 0.5], "eps": "8 / 255", "path": "../..", "name": "a/b", "range": "0.1:1"}
    kept = TrainConfig.parse({"out": "m", "objective_option": given}).objective_option
    assert kept == {**given, "sigmas": [0.25, 0.5], "eps": 8 / 255}


@pytest.mark.parametrize(("text", "words"), [
    ("1/0", "denominator 0"), ("8/", "number or a fraction"), ("½", "number or a fraction"),
    ("1/2/3", "number or a fraction"), ("nan/2", "finite"), ("1/inf", "finite"), ("nan", "got nan"),
    ("-1/255", "above 0"), ("1e308/1e-308", "finite"),
])
def test_fractions_that_are_none_are_refused(work, tmp_path, text, words):
    command = ["attack", work / "m", "--sigma", "1/4", "--n", "10", "--eps", text, "-o", tmp_path / "a"]
    said = run(*command, code=2).stderr
    assert words in said
    assert "eps" in said
    if words not in ("got nan", "above 0"):
        assert words in run("table", work / "s", "--radii", text, code=2).stderr
        with pytest.raises(ConfigError, match=words):
            TrainConfig.parse({"out": "m", "sigma": text})
    if text == "1/0":
        with pytest.raises(ConfigError, match=f"objective_option.*{words}"):
            TrainConfig.parse({"out": "m", "objective_option": {"eps": text}})
