"""A store is printed alike by every verb that shows it, as text, as JSON, and in every format."""

import json

import pytest
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.report.certified import BOUNDS

COMMON = ["--max-images", "12", "--seed", "1", "--threads", "1", "-q"]


def run(*arguments) -> str:
    """What a verb prints on standard output."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout.rstrip("\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shown") / "m"
    run("train", "--data", "digits", "--model", "linear", "--sigma", "0.25", "--epochs", "1", "--max-images", "300",
        "--threads", "1", "-q", "-o", folder)
    return folder


VERBS = {
    "certify": ["certify", "--n", "200"],
    "certify-radii": ["certify", "--n-max", "400", "--radii", "0.1,0.25"],
    "predict": ["predict", "--n", "100,200"],
    "attack": ["attack", "--eps", "0.25,0.5", "--m", "2", "--steps", "2", "--n", "100"],
    "attack-soft": ["attack", "--eps", "0.25", "--m", "2", "--steps", "2", "--n", "16", "--answer", "softmax"],
    "distributional": ["distributional", "--loss", "clipped", "--n", "50", "--gamma", "8", "--rho", "0,0.25",
                       "--search-option", "steps=2", "--search-option", "draws=2"],
}


@pytest.fixture(scope="module")
def stores(model):
    """By name a store, and the arguments that made it."""
    found = {}
    for name, (verb, *options) in VERBS.items():
        folder = model.parent / name
        found[name] = folder, [verb, model, *options, *COMMON, "-o", folder]
        run(*found[name][1])
    return found


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_prints_a_store_alike(stores, name):
    folder, command = stores[name]
    text, plain = run("table", folder), json.loads(run("table", folder, "--json"))
    assert len(plain) == 1
    assert (plain[0]["store"], plain[0]["name"], plain[0]["kind"]) == (str(folder), name, name.split("-")[0])
    assert run(*command) == text
    assert json.loads(run(*command, "--json")) == plain[0]
    assert text in run("info", folder)
    facts = json.loads(run("info", folder, "--json"))
    assert {field: facts[field] for field in plain[0]} == plain[0]
    assert facts["identity"]["kind"] == plain[0]["kind"]


@pytest.mark.parametrize("name", ["certify", "certify-radii"])
def test_a_recomputed_store_is_printed_as_it_was(stores, name):
    folder, _ = stores[name]
    for style in ("text", "markdown", "csv", "latex"):
        assert run("recertify", folder, "--format", style) == run("table", folder, "--format", style)
    (plain,) = json.loads(run("table", folder, "--json"))
    assert json.loads(run("recertify", folder, "--json")) == {**plain, "store": None}
    kept = folder.parent / f"{name}-kept"
    text = run("recertify", folder, "--alpha", "0.01", "-o", kept)
    assert text == run("table", kept)
    assert json.loads(run("recertify", folder, "--alpha", "0.01", "--json", "-o", kept)) == json.loads(
        run("table", kept, "--json"))[0]


@pytest.mark.parametrize("name", ["certify", "certify-radii"])
def test_intervals_are_one_or_all_wherever_they_are_printed(stores, name):
    folder, command = stores[name]
    for asked, words in ((), ["certified accuracy", "new images, at least"]), (
            ("--intervals", "all"), [words for _, words in BOUNDS]):
        text = run("table", folder, *asked)
        assert [words for _, words in BOUNDS if f"\n{words}  " in text] == words
        assert run(*command, *asked) == run("recertify", folder, *asked) == text
        assert text in run("info", folder, *asked)
        for style in ("markdown", "latex"):
            shown = run("table", folder, *asked, "--format", style)
            assert [words for _, words in BOUNDS if f"{words} |" in shown or f"{words} &" in shown] == words
    for style in (["--format", "csv"], ["--json"]):
        assert run("table", folder, *style) == run("table", folder, "--intervals", "all", *style)
        assert "bernstein" in run("table", folder, *style)


@pytest.mark.parametrize("ending", ["tsv", "npz"])
def test_a_log_and_a_count_file_are_printed_alike(stores, ending):
    path = stores["certify"][0].parent / f"file.{ending}"
    run("export", stores["certify"][0], "-o", path)
    (plain,) = json.loads(run("table", path, "--json"))
    facts = json.loads(run("info", path, "--json"))
    assert {field: facts[field] for field in plain} == plain
    assert run("table", path) in run("info", path)


def test_a_store_among_others_has_the_figures_that_it_has_alone(stores):
    names = ["certify", "predict", "attack", "distributional"]
    alone = [json.loads(run("table", stores[name][0], "--json"))[0] for name in names]
    together = json.loads(run("table", *(stores[name][0] for name in names), "--json"))
    assert sorted(together, key=lambda one: names.index(one["kind"])) == alone
