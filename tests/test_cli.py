"""The command line: verbs, exit codes, JSON, configs, and errors in plain words."""

import csv
import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app, main
from smoothcert.errors import ConfigError
from smoothcert.runs.config import CertifyConfig, PredictConfig, TrainConfig
from smoothcert.runs.store import read_store
from smoothcert.stats import average_certified_radius

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
    assert not loaded & {"torch", "matplotlib", "scipy", "pyarrow", "sklearn", "plotly"}
    assert _seconds([CLI, "--help"]) < 3, "1 s on a quiet machine; the bound here only catches a heavy import"


def _seconds(command) -> float:
    """Of processors, which other work on the machine does not lengthen."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize(("verb", "config"), [
    ("train", TrainConfig), ("certify", CertifyConfig), ("predict", PredictConfig),
])
def test_every_field_is_an_option_with_its_words_and_default(verb, config):
    shown = " ".join(CliRunner().invoke(app, [verb, "--help"]).output.replace("│", " ").split())
    for name, field in config.model_fields.items():
        flag = "MODEL" if name == "model" and verb != "train" else "--" + name.replace("_", "-")
        assert flag in shown
        assert field.description.split("(")[0].split()[0] in shown
    assert "(default: 0.001)" in shown or verb == "train"


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
    assert again.identity["procedure"]["alpha"] == 0.05
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
    for name, start in (("a", "0"), ("b", "15")):
        run("certify", work / "m", "--n", "1000", "--start", start, "--max-images", "15", "--seed", "0", "-q", "-o",
            work / name)
    merged = json.loads(run("table", work / "a", work / "b", "--merge", "--radii", "0.1", "--json").output)
    whole = json.loads(run("table", work / "s", "--radii", "0.1", "--json").output)
    assert len(merged) == 1
    assert merged[0]["claimed"] == whole[0]["claimed"]
    assert "same images" in run("table", work / "a", work / "s", "--merge", code=2).stderr


def test_yaml_and_flags(work, tmp_path):
    (tmp_path / "c.yaml").write_text(f"model: {work / 'm'}\nn: 300\nmax-images: 5\nsigma: 0.5\nseed: 0\n")
    run("certify", "--config", tmp_path / "c.yaml", "--sigma", "0.25", "-q", "-o", tmp_path / "s")
    store = read_store(tmp_path / "s")
    assert store.identity["noise"]["sigma"] == 0.25
    assert store.identity["procedure"]["n"] == 300


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


@pytest.mark.slow
def test_demo(tmp_path, monkeypatch):
    """As it is but for two options: on every ninth image, and without a trial of engines."""
    checked = CertifyConfig.checked
    monkeypatch.setattr(CertifyConfig, "checked", lambda told: checked({**told, "every": 9, "engine": "eager"}))
    result = run("demo", "-o", tmp_path / "d", "-q")
    assert "certified accuracy" in result.output
    assert (tmp_path / "d" / "curve.png").stat().st_size > 10_000
    assert "<svg" in (tmp_path / "d" / "curve.svg").read_text()
    told = json.loads(run("table", tmp_path / "d" / "store", "--radii", "0,0.25", "--json").output)[0]
    assert told["accuracy"][0] > 0.9
    assert told["accuracy"][1] > 0.75


def test_numbers_are_read_as_people_write_them(tmp_path):
    options = TrainConfig.checked({"out": "m", "objective_option": ["a=1e-3", "b=-.5", "c=2", "d=null", "e=word"]})
    assert options.objective_option == {"a": 0.001, "b": -0.5, "c": 2, "d": None, "e": "word"}
    (tmp_path / "c.yaml").write_text("objective-option: {a: 1E5, b: 1e-3}")
    read = TrainConfig.gather({"out": "m"}, tmp_path / "c.yaml").objective_option
    assert read == {"a": 1e5, "b": 0.001}
    assert all(type(value) is float for value in read.values())
    with pytest.raises(ConfigError, match=r"objective_option.*YAML"):
        TrainConfig.checked({"out": "m", "objective_option": ["a=[1,"]})
