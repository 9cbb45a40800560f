"""Logs and count files in and out: a radius never rises, what a file cannot say is said, damage is named."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import FileError, InputError, StoreError
from smoothcert.interop import name_inputs, open_records, read_counts, read_log, write_counts, write_log
from smoothcert.interop.logs import round_down, seconds_of
from smoothcert.report.options import TableConfig
from smoothcert.results.certified import Result
from smoothcert.results.gather import gather
from smoothcert.stats import certify_counts, predict_counts
from smoothcert.store.recertify import recertify
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store

K, N = 5, 1000
HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
LINES = ["0\t3\t3\t0.978\t1\t0:02:31.238689", "20\t1\t-1\t0.0\t0\t17.5", "40\t2\t0\t0.0504\t0\t1 day, 0:00:01"]


def identity(kind: str, count: int, **changes) -> dict:
    procedure = {"method": "two-sided", "alpha": 0.001, "n0": 100, "n": N, "margin": None} if kind == "certify" else {
        "method": "predict", "alpha": 0.001, "n": N}
    return {"kind": kind, "num_classes": K, "images": {"count": count, "start": 0, "every": 1}, "seed": 0,
            "data": {"name": "some", "split": "test", "shape": [3, 4, 4], "sha256": "0"},
            "noise": {"kind": "grid", "sigma": 0.5, "levels": 255, "reach": 1.0}, "procedure": procedure, **changes}


def store(folder: Path, count: int = 40, kind: str = "certify", seed: int = 0, **changes):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(K) / 5, count)
    select, estimate = rng.multinomial(100, p), rng.multinomial(N, p)
    labels = np.random.default_rng(9).integers(K, size=count)
    if kind == "certify":
        answers = certify_counts(select, estimate, 0.5)
        stages, values = {"select": select, "estimate": estimate}, {"radius": answers.radius}
    else:
        answers = predict_counts(estimate)
        stages, values = {"predict": estimate}, {"p_value": answers.p_value}
    write_store(folder, identity(kind, count, **changes), {"versions": {}}, [
        Record(20 * i, int(labels[i]), int(answers.prediction[i]), {k: float(v[i]) for k, v in values.items()}, False,
               [Tally.of(stage, counts[i]) for stage, counts in stages.items()]) for i in range(count)])
    return read_store(folder)


def log(folder: Path, lines=LINES, head: str = HEAD, name: str = "sigma_0.25.tsv") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / name
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def run(*arguments, code: int = 0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def test_a_log_is_read(tmp_path):
    told = read_log(log(tmp_path / "noise_1.00" / "test"))
    assert told.column("index").tolist() == [0, 20, 40]
    assert told.column("prediction").tolist() == [3, -1, 0]
    assert told.column("radius").tolist() == [0.978, 0.0, 0.0504]
    assert told.correct.tolist() == [True, False, False]
    assert seconds_of(told) == [151.238689, 17.5, 86401.0]
    assert told.identity.noise.sigma == 0.25, "the name of the file comes before that of its folder"
    assert Result.of(told).printed
    assert read_log(log(tmp_path / "noise_1.00" / "test", name="x.tsv")).identity.noise.sigma == 1.0
    assert np.isnan(read_log(log(tmp_path / "n", name="x.tsv")).identity.noise.sigma)


@given(st.floats(min_value=5e-324, max_value=1e6))
@settings(max_examples=100, deadline=None)
def test_a_printed_radius_is_never_above_the_radius(radius):
    shown = float(round_down(radius))
    assert 0 < shown <= radius
    assert radius < 1e-300 or shown >= radius * (1 - 1.1e-5)
    assert float(round_down(float(np.nextafter(radius, 0)))) <= np.nextafter(radius, 0)
    assert round_down(shown) == round_down(radius), "a second round trip changes nothing"


@pytest.mark.parametrize("kind", ["certify", "predict"])
def test_a_round_trip_keeps_what_a_log_can_hold(tmp_path, kind):
    before = store(tmp_path / "s", kind=kind)
    (tmp_path / "s" / "times.jsonl").write_text('{"index": 20, "seconds": 75.25}\n{"index": 40, "sec')
    write_log(before, tmp_path / "new" / "sigma_0.50.tsv")
    after = open_records(tmp_path / "new" / "sigma_0.50.tsv")
    assert after.kind == kind
    for name in ("index", "label", "prediction"):
        assert (after.column(name) == before.column(name)).all()
    assert (after.correct == before.correct).all()
    assert seconds_of(after)[:3] == [0, 75.25, 0]
    assert after.identity.noise.sigma == 0.5
    if kind == "certify":
        assert (after.column("radius") <= before.column("radius")).all()
        assert ((after.column("radius") > 0) == (before.column("radius") > 0)).all()
        assert np.allclose(after.column("radius"), before.column("radius"), rtol=1.1e-5)
    write_log(after, tmp_path / "again.tsv")
    assert (tmp_path / "again.tsv").read_bytes() == (tmp_path / "new" / "sigma_0.50.tsv").read_bytes()


@pytest.mark.parametrize(("lines", "head", "words"), [
    (LINES, "idx\tlabel\tradius\tcorrect\ttime", "no predict"),
    (LINES, "a,b", "no idx, label, predict"),
    (["0\t3\tcat\t0.978\t1\t1"], HEAD, "line 2: predict must be a whole number, got 'cat'"),
    ([LINES[0], "20\t1\t-2\t0.1\t0\t1"], HEAD, "line 3: predict must be a class, or -1 for an abstention, got -2"),
    (["0\t-1\t0\t0.978\t1\t1"], HEAD, "line 2: label must be at least 0"),
    (["0\t3\t3\tnan\t1\t1"], HEAD, "line 2: a radius must be a finite number"),
    (["0\t3\t3\twide\t1\t1"], HEAD, "got 'wide'"),
    (["0\t3\t3\t-0.1\t1\t1"], HEAD, "a radius must be"),
    ([LINES[0], "20\t1"], HEAD, "line 3: 2 values under 6 columns"),
    ([LINES[0], LINES[1], LINES[0]], HEAD, "image 0 in lines 2 and 4"),
])
def test_a_wrong_log_is_refused_and_the_line_named(tmp_path, lines, head, words):
    with pytest.raises(FileError, match=re.escape(words)):
        read_log(log(tmp_path, lines, head))


def test_a_cut_last_line_is_left_out_and_a_wrong_column_noted(tmp_path):
    path = log(tmp_path, ["0\t3\t3\t0.978\t0\t1", LINES[1]])
    path.write_text(path.read_text() + "40\t2\t0\t0.0")
    told = read_log(path)
    assert told.column("index").tolist() == [0, 20]
    shown = run("table", path).output
    assert "cut off" in shown
    assert "`correct` is not `predict == label` in 1 lines" in shown
    assert "possibly rounded up" in shown


def test_an_abstention_has_no_radius(tmp_path):
    assert read_log(log(tmp_path, ["0\t3\t-1\t0.5\t0\t1"])).column("radius").tolist() == [0]


def test_no_log_and_no_file(tmp_path):
    (tmp_path / "b.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="as a log"):
        read_log(tmp_path / "b.tsv")
    with pytest.raises(FileError, match="no store"):
        open_records(tmp_path / "none.tsv")
    (tmp_path / "empty.tsv").write_text(HEAD + "\n")
    assert "no records" in run("table", tmp_path / "empty.tsv", code=1).stderr


@pytest.mark.parametrize("kind", ["certify", "predict"])
def test_counts_keep_every_answer(tmp_path, kind):
    before = store(tmp_path / "s", kind=kind)
    write_counts(before, tmp_path / "c.npz")
    after = open_records(tmp_path / "c.npz")
    assert after.records.equals(before.records)
    assert after.identity.procedure == before.identity.procedure
    if kind == "certify":
        again, _ = recertify(after, alpha=0.05, method="cohen")
        wanted, _ = recertify(before, alpha=0.05, method="cohen")
        assert (again.radius == wanted.radius).all()
        shown = json.loads(run("recertify", tmp_path / "c.npz", "--alpha", "0.05", "--method", "cohen", "--radii", "0",
                               "--json").output)
        assert shown["acr"] == np.where(again.prediction == before.column("label"), again.radius, 0).mean()


def test_counts_say_what_they_lack(tmp_path):
    good = {"label": np.array([0, 1]), "select": np.full((2, K), 20), "estimate": np.full((2, K), 200), "sigma": 0.5}
    def written(**changes):
        np.savez(tmp_path / "c.npz", **{k: v for k, v in {**good, **changes}.items() if v is not None})
        return tmp_path / "c.npz"

    assert read_counts(written()).column("index").tolist() == [0, 1]
    assert read_counts(written(), alpha=0.2).identity.procedure.alpha == 0.2
    for changes, words in [
        ({"sigma": None}, "no array sigma"), ({"estimate": None}, "no array estimate"), ({"sigma": -1.0}, "sigma"),
        ({"label": np.array([0, K])}, "labels lie below"), ({"index": np.array([3, 3])}, "once"),
        ({"select": np.full((3, K), 20)}, "select must hold"), ({"select": np.full((2, K), 20.0)}, "select must hold"),
        ({"estimate": np.array([[1] * K, [2] * K])}, "different numbers of votes"), ({"method": "cohan"}, "cohen"),
        ({"alpha": 2.0}, "alpha"), ({"label": np.array([[0, 1]])}, "label must hold"),
    ]:
        with pytest.raises(FileError, match=words):
            read_counts(written(**changes))
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(FileError, match="corrupt"):
        read_counts(tmp_path / "d.npz")


def test_what_has_no_counts_is_not_certified_again(tmp_path):
    path = log(tmp_path)
    assert "no votes" in run("recertify", path, code=1).stderr
    with pytest.raises(StoreError, match="no votes"):
        write_counts(read_log(path), tmp_path / "c.npz")
    fixed = store(tmp_path / "s")
    told = fixed.identity.replace(procedure={**fixed.identity.procedure.raw, "design": "radii"})
    sequential = replace(fixed, identity=told)
    with pytest.raises(StoreError, match="sequential"):
        write_counts(sequential, tmp_path / "c.npz")


def test_export(tmp_path):
    store(tmp_path / "s")
    run("export", tmp_path / "s", "-o", tmp_path / "a.tsv")
    assert (tmp_path / "a.tsv").read_text().splitlines()[0].startswith(HEAD)
    run("export", tmp_path / "s", "-o", tmp_path / "a.npz")
    facts = {name: json.loads(run("info", tmp_path / name, "--json").output) for name in ("s", "a.tsv", "a.npz")}
    assert [one["is"] for one in facts.values()] == ["certify store", "certify log", "certify count file"]
    assert [facts["a.tsv"][name] for name in ("sigma", "n", "alpha", "method")] == [0.5, N, 0.001, "two-sided"]
    assert facts["s"]["acr"] == facts["a.npz"]["acr"] >= facts["a.tsv"]["acr"] > 0.99 * facts["s"]["acr"]
    assert "must end in .tsv" in run("export", tmp_path / "s", "-o", tmp_path / "a.csv", code=2).stderr


@pytest.mark.parametrize("kind", ["certify", "predict"])
def test_export_to_a_table(tmp_path, kind):
    """All columns as stored, and those that need no list to be taken apart."""
    whole = store(tmp_path / "s", count=300, kind=kind)
    run("export", tmp_path / "s", "-o", tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.select(whole.records.column_names).equals(whole.records)
    assert table["correct"].to_pylist() == whole.correct.tolist()
    for stage in ("select", "estimate") if kind == "certify" else ("predict",):
        counts = whole.counts(stage)
        assert table[f"{stage}_n"].to_pylist() == counts.sum(axis=1).tolist()
        assert table[f"{stage}_top"].to_pylist() == counts.argmax(axis=1).tolist()
        assert table[f"{stage}_top_votes"].to_pylist() == counts.max(axis=1).tolist()
    assert json.loads(table.schema.metadata[b"smoothcert"]) == whole.identity.raw
    write_log(whole, tmp_path / "a.tsv")
    run("export", tmp_path / "a.tsv", "-o", tmp_path / "b.parquet")
    assert pq.read_table(tmp_path / "b.parquet")["prediction"].equals(table["prediction"])


def test_names_differ_and_methods_are_told(tmp_path):
    paths = [tmp_path / part / "s.tsv" for part in ("a", "b")]
    assert [one.name for one in name_inputs(map(str, paths))] == ["a/s", "b/s"]
    told = name_inputs([f"ours={paths[0]}", str(paths[1])])
    assert [one.group for one in told] == ["ours", ""]
    assert [one.name for one in name_inputs(["run", "run.tsv", "run.npz"])] == ["run", "run.tsv", "run.npz"]
    odd = tmp_path / "x=1"
    odd.mkdir()
    assert name_inputs([str(odd)])[0].path == odd
    assert TableConfig.parse({"stores": "s", "radii": "2/255, 0.5,1"}).radii == (2 / 255, 0.5, 1)
    for wrong in ("a", "1/0"):
        with pytest.raises(InputError, match="radii"):
            TableConfig.parse({"stores": "s", "radii": wrong})


def test_the_rest_is_shown_where_one_is_damaged(tmp_path):
    store(tmp_path / "good")
    store(tmp_path / "bad", seed=1)
    shard = tmp_path / "bad" / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:100])
    done = run("table", tmp_path / "good", tmp_path / "bad", tmp_path / "none", "--radii", "0.5", code=1)
    assert "good: 40 images" in done.stdout
    assert "shard-00000.parquet has changed" in done.stderr
    assert "no store" in done.stderr
    assert "has changed" in run("table", tmp_path / "good", tmp_path / "bad", "--merge", code=1).stderr
    assert "has changed" in run("compare", tmp_path / "good", tmp_path / "bad", code=1).stderr
    both = run("table", tmp_path / "bad", tmp_path / "none", code=1).stderr
    assert "has changed" in both
    assert "no store" in both


def test_both_kinds_in_one_table(tmp_path):
    store(tmp_path / "c")
    store(tmp_path / "p", kind="predict")
    shown = run("table", tmp_path / "c", tmp_path / "p").output
    assert "certified accuracy" in shown
    assert "abstained" in shown.splitlines()[-4]
    assert len(json.loads(run("table", tmp_path / "c", tmp_path / "p", "--json").output)) == 2
    assert "one kind" in run("table", tmp_path / "c", tmp_path / "p", "--format", "csv", code=2).stderr
    for style in ("csv", "markdown", "latex"):
        assert "accuracy" in run("table", tmp_path / "p", "--format", style).output
    assert "merged" in run("table", tmp_path / "p", tmp_path / "p", "--merge", code=2).stderr
    assert "PREDICT" in run("compare", tmp_path / "c", tmp_path / "p", code=2).stderr


def test_linf(tmp_path):
    known, unknown = store(tmp_path / "s"), log(tmp_path)
    l2 = Result.of(known)
    linf = gather([str(tmp_path / "s")], norm="linf").results[0]
    assert (linf.radius <= l2.radius / np.sqrt(48)).all()
    assert np.allclose(linf.radius, l2.radius / np.sqrt(48), rtol=1e-12)
    shown = json.loads(run("table", tmp_path / "s", "--norm", "linf", "--radii", "2/255", "--json").output)[0]
    assert shown["accuracy"] == [np.mean(l2.correct & (l2.radius >= 2 / 255 * np.sqrt(48) * (1 + 1e-12)))]
    assert "2/255" in run("table", tmp_path / "s", "--norm", "linf", "--radii", "2/255").output
    assert "--dimension" in run("table", unknown, "--norm", "linf", code=2).stderr
    run("table", unknown, "--norm", "linf", "--dimension", "3072")
    assert "leave it out" in run("table", unknown, "--dimension", "3072", code=2).stderr
    assert "48 values" in run("table", tmp_path / "s", "--norm", "linf", "--dimension", "3072", code=2).stderr


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb"])
def test_snippets_of_the_docs(tmp_path, monkeypatch, library):
    pytest.importorskip(library)
    page = (Path(__file__).parents[2] / "docs" / "interop.md").read_text()
    (code,) = [body for body in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if f"import {library}" in body]
    expected = store(tmp_path / "store", count=300)  # two shards
    (tmp_path / "store" / "adversaries").mkdir()
    for other in ("times.jsonl", "journal.jsonl", ".shard-00002.parquet.tmp", "adversaries.json", "adversaries/0.npy"):
        (tmp_path / "store" / other).write_text("not parquet")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    wanted = np.mean(expected.correct & (expected.column("radius") >= 0.5))
    assert names["accuracy"] == pytest.approx(wanted, abs=1e-12)


@pytest.fixture(scope="module")
def logs() -> Path:
    """The published logs of Cohen et al. 2019, where there are some."""
    folder = Path(os.environ.get("SMOOTHCERT_LOGS_DIR", ""))
    if not (folder / "certify" / "cifar10").is_dir():
        pytest.skip("needs the published logs of Cohen et al. 2019: set SMOOTHCERT_LOGS_DIR")
    return folder


PUBLISHED = {
    "cifar10/resnet110": ([0.25, 0.5, 0.75, 1, 1.25, 1.5], {
        "0.12": [.59, 0, 0, 0, 0, 0], "0.25": [.60, .43, .27, 0, 0, 0], "0.50": [.55, .41, .32, .23, .15, .09],
        "1.00": [.39, .34, .28, .22, .17, .14]}),
    "imagenet/resnet50": ([0.5, 1, 1.5, 2, 2.5, 3], {
        "0.25": [.49, 0, 0, 0, 0, 0], "0.50": [.46, .37, .29, 0, 0, 0], "1.00": [.38, .33, .26, .19, .15, .12]}),
}


@pytest.mark.parametrize("network", PUBLISHED)
def test_the_published_tables_regenerate(logs, network):
    radii, rows = PUBLISHED[network]
    files = [logs / "certify" / network / f"noise_{s}" / "test" / f"sigma_{s}.tsv" for s in rows]
    command = ("table", *files, "--radii", ",".join(map(str, radii)))
    found = json.loads(run(*command, "--json").output)
    for told, wanted in zip(found, rows.values(), strict=True):
        assert np.allclose(told["accuracy"], wanted, atol=0.00501)
        assert told["rounded_up"]
    shown = run(*command).output
    assert ("427 of the 500 images: 73 (from image 42700 to 49900) are missing" in shown) == ("imagenet" in network)


def test_the_published_predictions(logs):
    folder = logs / "predict" / "imagenet" / "resnet50" / "noise_0.25" / "test"
    shown = run("table", *(folder / f"N_{n}.tsv" for n in (100, 1000, 10000))).output
    found = [re.split(r"\s{2,}", line)[4:7] for line in shown.splitlines()[1:4]]
    assert found == [["100", "66.0", "9.2"], ["1,000", "68.0", "3.2"], ["10,000", "69.0", "1.0"]]


def test_the_train_log_is_not_compared_with_the_test_log(logs):
    folder = logs / "certify" / "imagenet" / "resnet50" / "noise_0.50"
    files = [folder / part / "sigma_0.50.tsv" for part in ("test", "train")]
    assert "different data sets" in run("compare", *files, code=2).stderr
    assert "not compared" in run("table", *files).output
