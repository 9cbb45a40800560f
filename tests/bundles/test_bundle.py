"""Bundles of every kind of store: each file opened by a tool of its own format, and what is refused."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import huggingface_hub
import numpy as np
import pytest
import torch
from cyclonedx.model.bom import Bom
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message
from typer.testing import CliRunner

import smoothcert
from smoothcert.bundles.bom import check_bom
from smoothcert.bundles.bundle import Bundle, read_epoch
from smoothcert.bundles.statement import PREDICATE, check_statement
from smoothcert.cli.main import app
from smoothcert.data import from_tensors
from smoothcert.errors import (
    ConfigError,
    EmptyStoreError,
    FileError,
    InputError,
    MissingExtraError,
    SmoothcertError,
    StoreError,
)
from smoothcert.report.selftest import SelfTest, SelftestCheck, read_selftest
from smoothcert.results.certified import Result
from smoothcert.results.requirements import check_store
from smoothcert.stats import predict_counts
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify
from stores import DIGITS, attacked, change_manifest, identity_of, made

REQUIRE = ["accuracy@0.1 >= 0.1", "acr >= 0.01"]
TOLD = {"versions": {"torch": "2.13.0+cpu", "python": "3.11.2", "smoothcert": "0.1.0"}}


def predicted(folder: Path, count: int = 12) -> Path:
    """A store of PREDICT that is right on all images but the first."""
    counts = np.eye(10, dtype=np.int64)[DIGITS.labels[:count]] * 100
    counts[0] = 10
    records = []
    for i in range(count):
        given = predict_counts(counts[i], 0.001)
        records.append(Record(i, int(DIGITS.labels[i]), int(given.prediction), {"p_value": float(given.p_value)}, False,
                              [Tally.of("predict", counts[i])]))
    write_store(folder, identity_of("predict", count, 0.25, {"method": "predict", "n": 100}), {}, records)
    return folder


class Halves(torch.nn.Module):
    """Two outputs: how far the means of both halves of an input are from 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.full((2,), -0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), 2, -1).mean(dim=2) + self.bias


def sampled(folder: Path, task: str, **options) -> Path:
    """A store of a task that is made by a run, over 6 inputs."""
    x = np.random.default_rng(0).random((6, 1, 2, 2), dtype=np.float32)
    y = x.reshape(6, 2, 2).mean(axis=2) - 0.5
    data = from_tensors(x, y if task == "regression" else (y > 0).astype(float), real=True, name="halves")
    smoothcert.certify(Halves(), data, task=task, sigma=0.25, noise="gaussian", seed=3, alpha=0.01, out=folder,
                       **options)
    return folder


def selftest_file(path: Path, verdict: str = "green", versions: str = "torch 2.13.0+cpu, python 3.11.2") -> Path:
    checks = [SelftestCheck(group=group, name="votes", verdict=verdict, measured="p 0.5")
              for group in ("engine eager", "smaller spaces")]
    found = SelfTest(date="2026-11-30 12:00 UTC", seconds=1.0, false_alarm=1e-6,
                     settings={"noise": "grid", "precision": "float32", "device": "cpu"},
                     environment={"versions": f"{versions}, smoothcert 0.1.0"}, checks=tuple(checks))
    path.write_text(json.dumps(found.content()))
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    """A store of each kind."""
    folder = tmp_path_factory.mktemp("stores")
    found = {"certify": made(folder / "digits-25", method="two-sided", right=1.3, told=TOLD),
             "wide": made(folder / "digits-50", sigma=0.5, seed=2, method="two-sided", right=1.3, told=TOLD),
             "attack": attacked(folder / "pgd"), "predict": predicted(folder / "answers"),
             "multi-label": sampled(folder / "labels", "multi-label", n=200),
             "regression": sampled(folder / "intervals", "regression", n=200, radii=[0, 0.1])}
    done = CliRunner().invoke(app, ["distributional", str(found["certify"]), "-q", "-o", str(folder / "loss")])
    assert done.exit_code == 0, done.output
    return {**found, "distributional": folder / "loss"}


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory) -> tuple[Path, Bundle]:
    """A bundle of a store of each kind that answers with a class, with all that can be asked for."""
    folder = tmp_path_factory.mktemp("whole")
    of_classes = [path for kind, path in stores.items() if kind not in ("multi-label", "regression")]
    written = smoothcert.bundle(of_classes, folder / "b", require=REQUIRE, radii=[0, 0.1, 5],
                                selftest=selftest_file(folder / "selftest.json", versions="torch 2.12.0"))
    return folder / "b", written


def front(folder: Path) -> huggingface_hub.ModelCardData:
    return huggingface_hub.ModelCard.load(folder / "model-card.md").data


def load(folder: Path, name: str):
    return json.loads((folder / name).read_text(), parse_constant=lambda word: pytest.fail(f"{name} has {word}"))


def test_every_file_is_listed_and_hashed(whole):
    folder, written = whole
    assert written.files == tuple(sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    digests = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert {*digests, "SHA256SUMS"} == set(written.files)
    for name, digest in digests.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    subjects = {one["name"]: one["digest"]["sha256"] for one in load(folder, "statement.json")["subject"]}
    assert subjects == {name: digest for name, digest in digests.items() if name != "statement.json"}
    assert next(iter(subjects)) == "stores/digits-25/manifest.json"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_an_altered_file_is_found_by_its_digest(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "b")
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, check=False, cwd=tmp_path / "b", capture_output=True).returncode == 0
    figures = tmp_path / "b" / "figures.json"
    figures.write_text(figures.read_text().replace("0.9", "1.0", 1))
    done = subprocess.run(check, check=False, cwd=tmp_path / "b", capture_output=True, text=True)
    assert (done.returncode, "figures.json: FAILED" in done.stdout) == (1, True)


def test_stores_in_it_are_the_stores(whole, stores):
    for copy in (whole[0] / "stores").iterdir():
        path = stores["certify"].parent / copy.name
        assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
            file.name: file.read_bytes() for file in path.iterdir() if not file.name.startswith(".")}
        assert verify(VerifyConfig.parse({"store": copy})).problems == []


def test_the_bill_of_materials_is_as_cyclonedx_has_it(whole, stores):
    text = (whole[0] / "bom.cdx.json").read_text()
    check_bom(text)
    Bom.from_json(json.loads(text))
    content = json.loads(text)
    by_kind = {kind: [one for one in content["components"] if one["type"] == kind]
               for kind in ("machine-learning-model", "data", "file", "library", "platform")}
    assert [len(by_kind[kind]) for kind in by_kind] == [2, 3, 5, 2, 1]
    narrow, wide = (one["modelCard"] for one in by_kind["machine-learning-model"])
    metrics = {one["type"]: one for one in narrow["quantitativeAnalysis"]["performanceMetrics"]
               if one["slice"].startswith("stores/digits-25:")}
    at = Result.of(read_store(stores["certify"])).at([0.1], 0.05)
    found = metrics["certified accuracy at 0.1 (l2, sigma 0.25)"]
    low = float(found["confidenceInterval"]["lowerBound"])
    assert at.population[0] - 1e-4 < low <= at.population[0]
    assert at.accuracy[0] - 1e-4 < float(found["value"]) <= at.accuracy[0] + 1e-12
    assert found["confidenceInterval"]["upperBound"] == "1"
    assert "upperBound" not in metrics["average certified radius (l2, sigma 0.25)"]["confidenceInterval"]
    assert not any("at 5 " in name for name in metrics)  # a radius that the samples could not have proved
    refs = {one["bom-ref"] for one in content["components"]}
    assert {ref["ref"] for ref in narrow["modelParameters"]["datasets"]} <= refs
    assert wide["quantitativeAnalysis"]["performanceMetrics"]
    digest = hashlib.sha256((stores["certify"] / "manifest.json").read_bytes()).hexdigest()
    assert {"alg": "SHA-256", "content": digest} in [one["hashes"][0] for one in by_kind["file"]]
    assert "pkg:pypi/torch@2.13.0%2Bcpu" in [one["purl"] for one in by_kind["library"]]


def test_a_document_that_breaks_its_schema_is_refused(whole):
    content = load(whole[0], "bom.cdx.json")
    content["components"][0]["modelCard"] = {"quantitativeAnalysis": {"performanceMetrics": [{"value": 0.5}]}}
    with pytest.raises(FileError, match=r"0\.5 is not of type 'string'"):
        check_bom(json.dumps(content))
    statement = load(whole[0], "statement.json")
    for change in ({"subject": []}, {"predicate": {"result": 1}}, {"predicate": {"verdict": "PASSED"}}, {"more": 1},
                   {"subject": [{"name": "a"}]}):
        with pytest.raises(FileError, match="not as in-toto has it"):
            check_statement(json.dumps({**statement, **change}))


def test_the_model_card_is_read_by_the_hub(whole, stores):
    data = front(whole[0])
    shares = {(one.metric_name, one.metric_args["store"]): one for one in data.eval_results}
    one = shares["certified accuracy at 0.1 (l2, sigma 0.25)", "stores/digits-25"]
    store = read_store(stores["certify"])
    exact = np.mean(store.correct & (store.column("radius") >= 0.1))
    assert exact - 1e-4 < one.metric_value <= exact
    assert (one.dataset_name, one.dataset_split, one.task_type) == ("digits", "test", "image-classification")
    assert one.metric_args["at_least"] < one.metric_value
    assert {one.metric_type for one in data.eval_results} == {
        "certified_accuracy", "average_certified_radius", "accuracy", "attack_accuracy", "distributional_bound"}
    accuracy = shares["accuracy of PREDICT (n 100, sigma 0.25)", "stores/answers"]
    assert accuracy.metric_value == 0.9166


def test_the_statement_is_as_in_toto_has_it(whole):
    folder, written = whole
    message = json_format.Parse((folder / "statement.json").read_text(), Message())
    Statement.copy_from_pb(message).validate()
    predicate = json_format.MessageToDict(message.predicate)
    assert message.predicate_type == PREDICATE
    assert predicate["result"] == written.result == "WARNED"
    assert predicate["failedTests"] == []
    assert predicate["warnedTests"] == ["selftest of the installation"]
    assert "verify digits-25" in predicate["passedTests"]
    assert "digits-50: acr >= 0.01" in predicate["passedTests"]
    assert {"stores/pgd/manifest.json", "selftest.json", "checks.xml"} <= {
        one["name"] for one in predicate["configuration"]}


def test_tables_and_outcomes_are_those_of_the_verbs(whole, stores):
    folder, _ = whole
    figures = load(folder, "figures.json")
    assert [one["store"] for one in figures][:2] == ["stores/digits-25", "stores/digits-50"]
    told = CliRunner().invoke(app, ["table", str(stores["certify"]), str(stores["wide"]), "--radii", "0,0.1,5",
                                    "--format", "markdown"])
    assert (folder / "tables.md").read_text().startswith(told.stdout)
    rows = list(csv.DictReader((folder / "tables-certify.csv").open()))
    assert [float(row["accuracy"]) for row in rows[:3]] == figures[0]["accuracy"]
    assert {path.name for path in folder.glob("tables-*.csv")} == {
        f"tables-{kind}.csv" for kind in ("certify", "predict", "attack", "distributional")}
    assert [one["ok"] for one in load(folder, "verify.json")] == [True] * 5
    assert read_selftest(folder / "selftest.json").verdict == "green"
    suites = ElementTree.parse(folder / "checks.xml").getroot()
    assert (suites.get("tests"), suites.get("failures")) == ("4", "0")
    assert len(suites) == 2


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("href", "src")]


def test_pages_link_to_files_that_are_there_and_load_nothing(whole):
    folder, written = whole
    for page in ("index.html", "standards.html"):
        text = (folder / page).read_text()
        links = Links()
        links.feed(text)
        assert set(links.found) <= {*written.files, "#curves"}
        assert ' id="curves"' in text
        assert "default-src &#x27;none&#x27;" in text
    index = (folder / "index.html").read_text()
    assert {"report.html", "statement.json", "SHA256SUMS", "standards.html"} <= set(written.files)
    for words in ("WARNED", "made with torch 2.13.0+cpu", "smoothcert verify stores/digits-25", "margin +", "digits-50",
                  "cosign attest-blob --statement statement.json"):
        assert words in index
    assert "Missing from this page" not in (folder / "report.html").read_text()


def test_no_file_says_where_the_stores_were(whole, stores):
    for name in whole[1].files:
        content = (whole[0] / name).read_bytes()
        assert str(stores["certify"].parent).encode() not in content, name


def test_the_same_stores_give_the_same_bytes(whole, stores, tmp_path):
    moved = [shutil.copytree(stores["certify"].parent / name, tmp_path / "elsewhere" / name)
             for name in ("digits-25", "digits-50", "pgd", "answers", "loss")]
    for out in ("b", "b.zip", "again.zip"):
        smoothcert.bundle(moved, tmp_path / out, require=REQUIRE, radii=[0, 0.1, 5],
                          selftest=whole[0].parent / "selftest.json")
    for name in whole[1].files:
        assert (tmp_path / "b" / name).read_bytes() == (whole[0] / name).read_bytes(), name
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "again.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert archive.testzip() is None
        assert tuple(sorted(archive.namelist())) == whole[1].files
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("index.html") == (whole[0] / "index.html").read_bytes()


def test_a_time_is_that_of_the_environment(stores, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    smoothcert.bundle(stores["certify"], tmp_path / "b.zip", no_selftest=True)
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        assert json.loads(archive.read("bom.cdx.json"))["metadata"]["timestamp"] == "2023-11-14T22:13:20+00:00"
        assert archive.infolist()[0].date_time == (2023, 11, 14, 22, 13, 20)
    for text in ("yesterday", "1e9", str(10**30)):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
        with pytest.raises(InputError, match="seconds since 1970"):
            read_epoch()


def test_regressions_and_labels_have_their_own_figures(stores, tmp_path):
    written = smoothcert.bundle([stores["regression"], stores["multi-label"]], tmp_path / "b", no_selftest=True)
    assert written.result == "PASSED"
    assert {"report-intervals.html", "report-labels.html", "tables-regression.csv",
            "tables-multi-label.csv"} <= set(written.files)
    assert "report.html" not in written.files
    models = [one for one in load(tmp_path / "b", "bom.cdx.json")["components"] if "modelCard" in one]
    tasks = {one["modelCard"]["modelParameters"]["task"]: one["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
             for one in models}
    assert set(tasks) == {"regression", "multi-label classification"}
    assert tasks["regression"][0]["type"] == "mean width of intervals at radius 0 (output 0)"
    assert "confidenceInterval" in tasks["multi-label classification"][0]
    assert "the function is right" in (tmp_path / "b" / "index.html").read_text()
    assert {one.task_type for one in front(tmp_path / "b").eval_results} == {"other", "image-classification"}


@pytest.mark.parametrize("kind", ["predict", "attack", "distributional"])
def test_a_store_without_certificates_has_no_report(stores, tmp_path, kind):
    written = smoothcert.bundle(stores[kind], tmp_path / "b", no_selftest=True, digest_only=True)
    assert written.result == "PASSED"
    assert "report.html" not in written.files
    assert [name for name in written.files if name.startswith("stores/")] == [
        f"stores/{stores[kind].name}/manifest.json"]
    index = (tmp_path / "b" / "index.html").read_text()
    assert "report.html" not in index
    assert "cmp stores/" in index
    assert front(tmp_path / "b").eval_results


def test_the_command_says_what_failed_and_writes_all_the_same(stores, tmp_path):
    red = selftest_file(tmp_path / "red.json", "red")
    arguments = ["bundle", str(stores["certify"]), str(stores["predict"]), "-o", str(tmp_path / "b"), "--selftest",
                 str(red), "--require", "accuracy@0.1 >= 0.9", "--require", "acr <= 1", "--title", "<b>Mine & co</b>"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    for words in ("failed  digits-25: accuracy@0.1 >= 0.9", "failed  digits-25: acr <= 1", "failed  selftest",
                  "passed  verify answers", "FAILED"):
        assert words in done.stdout
    assert load(tmp_path / "b", "statement.json")["predicate"]["result"] == "FAILED"
    assert "<b>Mine" not in (tmp_path / "b" / "index.html").read_text()
    assert "<b>Mine" not in (tmp_path / "b" / "model-card.md").read_text().split("---\n")[2]
    assert "answers: accuracy" not in done.stdout  # requirements are for the certificates, where there are any
    told = CliRunner().invoke(app, [*arguments[:4], str(tmp_path / "c"), "--no-selftest", "--json", "-q"])
    assert json.loads(told.stdout)["result"] == "PASSED"


def test_the_selftest_is_made_where_none_is_given(stores, tmp_path, monkeypatch):
    asked = []

    def run(config):
        asked.append(config)
        return read_selftest(selftest_file(tmp_path / "made.json"))

    monkeypatch.setattr("smoothcert.selftest.run.selftest", run)
    written = smoothcert.bundle(stores["certify"], tmp_path / "b", quick=True)
    assert written.result == "PASSED"
    assert [(one.quick, one.noise, one.precision) for one in asked] == [(True, "grid", "float32")]
    assert "Selftest of the installation" in (tmp_path / "b" / "report.html").read_text()


def test_records_that_do_not_verify_fail_without_a_path(tmp_path):
    folder = made(tmp_path / "s", count=20)
    change_manifest(folder, lambda content: content["identity"]["procedure"].update(alpha=1e-6))
    written = smoothcert.bundle(folder, tmp_path / "b", no_selftest=True)
    assert (written.result, written.holds) == ("FAILED", False)
    told = load(tmp_path / "b", "verify.json")[0]
    assert not told["ok"]
    assert str(tmp_path) not in json.dumps(told)
    assert check_store(read_store(folder), ["accuracy >= 0"]).holds


def refuse(kind: type[SmoothcertError], words: str, stores, out: Path, **options):
    """Refuse a bundle, and leave nothing."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(kind, match=words):
        smoothcert.bundle(stores, out, **{"no_selftest": True, **options})
    assert sorted(out.parent.rglob("*")) == before


def test_what_is_no_finished_store_is_refused(stores, tmp_path):
    partial = made(tmp_path / "partial", count=20)
    change_manifest(partial, lambda content: content.update(complete=False))
    refuse(StoreError, "not complete", partial, tmp_path / "b")
    (tmp_path / "empty").mkdir()
    refuse(FileError, "not a store", tmp_path / "empty", tmp_path / "b")
    refuse(FileError, "no store", tmp_path / "none", tmp_path / "b")
    in_memory = replace(read_store(stores["certify"]), folder=Path("(in memory)/m"))
    refuse(StoreError, "in memory", in_memory, tmp_path / "b")
    refuse(InputError, "twice", [stores["certify"], stores["certify"]], tmp_path / "b")
    damaged = shutil.copytree(stores["certify"], tmp_path / "damaged")
    (damaged / "shard-00000.parquet").write_bytes(b"")
    refuse(StoreError, "has changed", damaged, tmp_path / "b")
    nothing = shutil.copytree(stores["certify"], tmp_path / "nothing")
    change_manifest(nothing, lambda content: (content.update(shards=[]), content["identity"]["images"].update(count=0)))
    refuse(EmptyStoreError, "no records", nothing, tmp_path / "b")
    linked = shutil.copytree(stores["certify"], tmp_path / "linked")
    (tmp_path / "secret").write_text("x")
    (linked / "times.jsonl").symlink_to(tmp_path / "secret")
    refuse(FileError, "leads out of", linked, tmp_path / "b")
    log = tmp_path / "log.tsv"
    assert CliRunner().invoke(app, ["export", str(stores["certify"]), "-o", str(log)]).exit_code == 0
    refuse(StoreError, "not a store on disk", log, tmp_path / "b")
    done = CliRunner().invoke(app, ["bundle", str(log), "-o", str(tmp_path / "b"), "--no-selftest"])
    assert (done.exit_code, "is a file" in done.stderr) == (1, True)


def test_nothing_is_written_over_or_left_behind(stores, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("mine")
    (tmp_path / "b.zip").write_text("mine")
    for out in ("b", "b.zip", "b/x"):
        refuse(InputError, "exists", stores["certify"], tmp_path / out)
    (tmp_path / "free").mkdir()
    smoothcert.bundle(stores["certify"], tmp_path / "free", no_selftest=True)
    assert (tmp_path / "free" / "index.html").is_file()
    refuse(FileError, "cannot write", stores["certify"], tmp_path / "b" / "x" / "y")


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz", "b.TGZ", "b.tar.xz"])
def test_a_folder_is_not_called_by_the_name_of_another_archive(stores, tmp_path, name):
    refuse(InputError, "a folder or a zip file", stores["certify"], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_no_bundle_is_written_into_a_store(stores, tmp_path):
    (tmp_path / "link").symlink_to(stores["certify"])
    before = sorted(stores["certify"].rglob("*"))
    for out in (stores["certify"] / "b", stores["certify"] / "sub" / "b.zip", tmp_path / "link" / "b"):
        with pytest.raises(InputError, match="lies in the store"):
            smoothcert.bundle(stores["certify"], out, no_selftest=True)
    assert sorted(stores["certify"].rglob("*")) == before


def test_all_mistakes_are_named_together(stores, tmp_path):
    with pytest.raises(ConfigError) as error:
        smoothcert.bundle(stores["certify"], tmp_path / "b", radii=[-1], require="acuracy > 1", rho=2, quick=True,
                          no_selftest=True, colour="red")
    for words in ("radii", "acuracy", "rho", "colour"):
        assert words in str(error.value)
    for options in ({"quick": True, "no_selftest": True}, {"bound": "observed"}):
        with pytest.raises(ConfigError, match=r"give one of them|leave bound out"):
            smoothcert.bundle(stores["certify"], tmp_path / "b", **options)
    refuse(StoreError, "requirements are on runs of", stores["attack"], tmp_path / "b", require="accuracy > 0")
    refuse(InputError, "radii are for runs of", stores["predict"], tmp_path / "b", radii=[0.5])
    refuse(FileError, "no file", stores["certify"], tmp_path / "b", no_selftest=False, selftest=tmp_path / "none.json")


@pytest.mark.parametrize("module", ["cyclonedx", "in_toto_attestation", "huggingface_hub"])
def test_without_a_package(stores, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    refuse(MissingExtraError, r"smoothcert\[bundle\]", stores["certify"], tmp_path / "b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(stores, tmp_path):
    (tmp_path / "fixed").mkdir(mode=0o500)
    with pytest.raises(FileError, match="cannot write"):
        smoothcert.bundle(stores["certify"], tmp_path / "fixed" / "b", no_selftest=True)
