"""The distributional run: its records, what is computed from them, and the certificate from a certify store."""

import csv
import json
import math
import pickle
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nets import write_nets
from printed import plain, table
from progress_events import sampled
from smoothcert.cli.main import app
from smoothcert.data import load_data
from smoothcert.distributional import (
    Search,
    WorstCase,
    certificate_from_counts,
    certificate_from_moments,
    clipped_cross_entropy,
    eps_equivalent,
    errors_of,
    inside_bound,
    outside_bound,
    sample_losses,
    side_by_side,
)
from smoothcert.errors import ConfigError, IdentityError, InputError, ModelError, StoreError
from smoothcert.noise import build_noise
from smoothcert.recipes.recipe import VERBS
from smoothcert.results.distributional import Robustness
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.distributional import distributional, prepare_distributional
from smoothcert.runs.options import CertifyConfig, DistributionalConfig, PredictConfig
from smoothcert.store.store import Store, read_store

NETS = """

class Outside:
    def __init__(self):
        self.net = Means()
    def __call__(self, x):
        return self.net(torch.from_numpy(x.detach().numpy())).detach()
"""
SIGMA, IMAGES, GAMMAS = 0.25, 8, (0.5, 3.0, 400.0)
SEARCH = ["steps=6", "draws=4", "check=40"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_nets(folder, 2, NETS)
    return folder


def common(home: Path, out: Path, **more) -> dict:
    return {"model": f"{home}/nets.py:Means", "data": "digits", "sigma": SIGMA, "seed": 1, "indices": range(IMAGES),
            "out": out, **more}


def options(home: Path, out: Path, **more) -> dict:
    return common(home, out, n=100, gamma="0.5,3,400", gamma_adv="0.1", search_option=SEARCH, **more)


def bounded(given: dict, *progress) -> Store:
    return distributional(DistributionalConfig.parse(given), *progress)


def records(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def store(home, tmp_path_factory) -> Store:
    config = DistributionalConfig.parse(options(home, tmp_path_factory.mktemp("run") / "s"))
    VERBS["distributional"].run(config, None)
    return read_store(config.out)


@pytest.fixture(scope="module")
def certified(home, tmp_path_factory) -> Store:
    given = common(home, tmp_path_factory.mktemp("certified") / "c", n=500, alpha=0.01, engine="plain")
    return certify(CertifyConfig.parse({**given, "indices": range(40)}))


def network(home: Path) -> torch.nn.Module:
    net, means = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), np.load(home / "means.npy")
    net[1].weight.data = 2 * torch.from_numpy(means)
    net[1].bias.data = -torch.from_numpy(means).square().sum(1)
    return net.eval()


class TestWhatTheStoreSays:
    def test_it_is_what_the_functions_of_the_package_give(self, home, store):
        data, loss, noise = load_data("digits"), clipped_cross_entropy(math.log(10)), build_noise("grid", SIGMA)
        images = torch.from_numpy(data.batch(range(IMAGES)))
        labels = torch.from_numpy(data.labels[:IMAGES])
        told, net = Robustness.of(store), network(home)
        moments = sample_losses(net, loss, images, labels, noise, 100, seed=1, keys=range(IMAGES))
        exact = certificate_from_moments(moments, SIGMA, loss.ceiling, 0.001)
        assert told.certificate.limits == pytest.approx(exact.limits, rel=1e-6)
        assert told.at(0.05)["certificate"] == pytest.approx(exact.at(0.05).value, rel=1e-6)
        search = Search(steps=6, draws=4, check=40)
        inside = inside_bound(net, loss, [(images, labels)], list(GAMMAS), seed=0, search=search)
        for mine, theirs in zip(told.bounds["inside"].surrogates, inside.surrogates, strict=True):
            for name in ("value", "estimate", "rho", "loss", "residual"):
                assert getattr(mine, name) == pytest.approx(getattr(theirs, name), rel=1e-4, abs=1e-6), name
            assert (mine.label, mine.reason, mine.solved) == (theirs.label, theirs.reason, theirs.solved)
        outside = outside_bound(net, loss, [(images, labels)], list(GAMMAS), noise, seed=0, alpha=0.9, search=search)
        loose = Robustness.of(store, alpha=0.9)
        for mine, theirs in zip(loose.bounds["outside"].surrogates, outside.surrogates, strict=True):
            assert (mine.label, mine.reason) == (theirs.label, theirs.reason)
            assert mine.estimate == pytest.approx(theirs.estimate, abs=0.1)  # other noise
            assert mine.value == pytest.approx(theirs.value, abs=0.2)
        assert [s.label for s in told.bounds["outside"].surrogates] == ["estimate", "estimate", "certificate"]
        assert told.bounds["outside"].noise_cost == outside.noise_cost

    def test_every_bound_is_above_the_worst_case_found(self, store):
        """At the costs of all ascents, and between them, where a mixture of two laws attains the curve."""
        told = Robustness.of(store)
        assert told.found["outside"].gamma.tolist() == [math.inf, 400, 3, 0.5, 0.1]
        costs = np.unique(np.concatenate([found.rho for found in told.found.values()]))
        for rho in (*costs, *(costs[1:] + costs[:-1]) / 2):
            at = told.at(float(rho))
            assert at["certificate"] >= at["sample"] >= at["outside_found"] > 0.1
            for form in ("outside", "inside"):
                assert at[form] >= at[f"{form}_found"] - 0.02  # draws of the ends differ
        assert np.all(np.diff(told.found["outside"].loss) > 0)

    def test_the_level_is_the_reader_s(self, store):
        loose, strict = (Robustness.of(store, alpha=alpha) for alpha in (0.9, 0.5))
        assert loose.at(0.0)["certificate"] < strict.at(0.0)["certificate"] < Robustness.of(store).at(0)["certificate"]
        ends = [run.bounds["outside"].surrogates[-1] for run in (loose, strict)]
        assert ends[0].estimate < ends[0].value < ends[1].value < loose.ceiling

    def test_an_estimate_that_the_search_itself_refutes_is_told(self, store):
        told = Robustness.of(store)
        assert "WARNING" not in table([told])
        worse = WorstCase(told.found["inside"].gamma, told.found["inside"].rho, told.found["inside"].loss + 1)
        shown = table([replace(told, found={**told.found, "inside": worse}, rho=(0.01,))])
        assert "WARNING: inside lies below the worst case found at rho 0.01" in shown
        shown = table([replace(told, found={**told.found, "inside": worse}, rho=(0.01,))], style="markdown")
        assert f"{told.name}: WARNING: inside lies below the worst case found at rho 0.01" in shown

    def test_mixtures_of_laws(self):
        curve = WorstCase(np.array([1.0, 2.0]), np.array([4.0, 2.0]), np.array([3.0, 1.0]))
        assert [curve.at(rho) for rho in (2, 3, 4, 9)] == [1, 2, 3, 3]
        assert math.isnan(curve.at(1.9))
        falling = WorstCase(np.array([1.0, 2.0]), np.array([4.0, 2.0]), np.array([1.0, 3.0]))
        assert falling.at(4) == 3

    def test_an_unbounded_loss_has_estimates_alone(self, home, tmp_path):
        given = options(home, tmp_path / "s", loss="cross-entropy")
        del given["n"]
        told = Robustness.of(bounded({**given, "indices": range(2)}))
        assert told.certificate is None
        assert {s.label for bound in told.bounds.values() for s in bound.surrogates} == {"estimate"}
        assert "no ceiling" in told.bounds["outside"].surrogates[-1].reason
        assert told.at(0)["certificate"] is None


class TestSameBytes:
    def test_stopped_at_any_record_the_same_call_finishes(self, home, store, tmp_path):
        class Stopped(BaseException):
            pass

        total = 10 * IMAGES
        for stop in (0, 1, 13, total - 1):
            def progress(event, stop=stop):
                assert event.phase != "sampling" or event.total == total
                if event.phase == "sampling" and event.done == stop:
                    raise Stopped

            with pytest.raises(Stopped):
                bounded(options(home, tmp_path / "s"), progress)
            if stop == 13:
                assert Robustness.of(read_store(tmp_path / "s")).images == 1
        told = []
        again = bounded(options(home, tmp_path / "s"), sampled(told))
        assert set(told) == {total - 1, total}
        assert records(again.folder) == records(store.folder)
        assert again.identity == store.identity

    def test_a_record_does_not_depend_on_the_other_images_and_gammas(self, home, store, tmp_path):
        given = common(home, tmp_path / "s", n=100, gamma="3", search_option=SEARCH, indices="5,2")
        few = bounded(given)
        wanted = [row for index in (5, 2) for row in store.records.to_pylist()
                  if row["index"] == index and row["gamma"] in (None, 3.0)]
        assert few.records.to_pylist() == wanted

    def test_another_process_makes_the_same_records_in_any_order(self, home, store, tmp_path):
        """What a worker is sent, and what it does with it."""
        run = prepare_distributional(DistributionalConfig.parse(options(home, tmp_path / "s", workers=2)))
        worker = pickle.loads(pickle.dumps(run.reopen()))()
        assert worker.identity == run.identity == store.identity
        made = {position: record.row() for position, record, _ in worker.records(run.tasks([61, 3, 17, 60]))}
        rows = store.records.to_pylist()
        assert made == {position: rows[position] for position in (61, 3, 17, 60)}

    def test_a_random_classifier_is_repeated(self, home, tmp_path):
        given = {**options(home, tmp_path / "a"), "model": f"{home}/nets.py:Walk", "indices": None, "max_images": 2}
        one, two = bounded(given), bounded({**given, "out": tmp_path / "b"})
        assert records(one.folder) == records(two.folder)

    def test_another_run_in_the_same_folder_is_refused(self, home, store):
        changes = {"gamma": "3", "gamma_adv": "0.2", "clip": 1.0, "n": 50, "alpha": 0.1, "search_option": ["steps=7"]}
        for name, value in changes.items():
            with pytest.raises(IdentityError, match="holds another run") as refused:
                bounded({**options(home, store.folder), name: value})
            assert "recertify" not in str(refused.value)
        assert bounded({**options(home, store.folder), "rho": "0.3"}).identity == store.identity


class TestFromCounts:
    def test_it_is_the_certificate_of_the_counts(self, certified, tmp_path):
        errors, n = errors_of(certified.counts("estimate"), certified.column("label"))
        exact = certificate_from_counts(errors, n, SIGMA, 0.01)
        given = {"model": str(certified.folder), "rho": "0,0.04"}
        told = Robustness.of(bounded(given))
        assert [told.at(rho)["certificate"] for rho in (0.0, 0.04)] == [exact.at(rho).value for rho in (0.0, 0.04)]
        kept = bounded({**given, "out": tmp_path / "d", "alpha": 0.05})
        assert (kept.kind, kept.complete) == ("distributional", True)
        other = certificate_from_counts(errors, n, SIGMA, 0.05)
        assert Robustness.of(kept).at(0.04)["certificate"] == other.at(0.04).value < exact.at(0.04).value
        assert np.array_equal(kept.counts("estimate"), certified.counts("estimate"))
        assert bounded({"model": str(kept.folder)}).identity == kept.identity
        with pytest.raises(InputError, match="already"):
            bounded({"model": str(kept.folder), "out": tmp_path / "e"})

    def test_images_that_a_pilot_settled_count_as_wrong(self, home, tmp_path):
        given = {**common(home, tmp_path / "c", n0=100, n_max=400, curve_loss=0.05, method="cohen", engine="plain"),
                 "sigma": 1.0, "indices": range(30)}
        run = certify(CertifyConfig.parse(given))
        errors, n = errors_of(run.counts("estimate"), run.column("label"))
        assert (n == 0).any()
        limits = Robustness.of(run).certificate.limits
        assert np.all(limits[n == 0] == 1)
        exact = certificate_from_counts(errors[n > 0], n[n > 0], 2.0, 0.001 * np.mean(n > 0))
        assert limits[n > 0] == pytest.approx(exact.limits, rel=1e-12)

    def test_stores_that_hold_no_fit_counts(self, home, certified, tmp_path):
        predicted = predict(PredictConfig.parse(common(home, tmp_path / "p", n=10)))
        stopped = certify(CertifyConfig.parse(common(home, tmp_path / "r", n_max=100, radii="0.1")))
        for folder, words in ((predicted.folder, "is a predict store"), (stopped.folder, "fixed beforehand")):
            with pytest.raises(StoreError, match=words):
                bounded({"model": str(folder)})
        with pytest.raises(ConfigError, match="leave gamma, n, sigma out"):
            bounded({"model": str(certified.folder), "gamma": "1", "n": 5, "sigma": 0.5})


class TestBadInput:
    @pytest.mark.parametrize(("change", "words"), [
        ({"rho": "-1", "gamma": "0,1", "gamma_adv": "nan", "clip": 0, "n": 0, "loss": "zero-one"}, (
            "rho: all must be finite numbers of at least 0", "gamma: all must be finite numbers above 0", "gamma_adv: ",
            "clip: ", "n: ", "loss: ")),
        ({"loss": "cross-entropy", "gamma": "1", "alpha": 0.1}, ("n and alpha ask for a certificate", "clip it")),
        ({"loss": "cross-entropy", "gamma": None, "gamma_adv": None, "search_option": []}, ("give gamma",)),
        ({"loss": "cross-entropy", "clip": 2}, ("clip is the ceiling",)),
        ({"search_option": ["steps=0", "draws=0", "pace=1"]}, ("steps must be at least 1", "draws must", "'pace'")),
        ({"gamma": None, "gamma_adv": None}, ("search-option is for the search",)),
        ({"out": None}, ("give out",)),
    ])
    def test_everything_wrong_is_said_at_once_and_before_any_work(self, home, tmp_path, change, words):
        given = {**options(home, tmp_path / "s"), **change}
        with pytest.raises(ConfigError) as refused:
            bounded({name: value for name, value in given.items() if value is not None})
        assert all(word in str(refused.value) for word in words)
        assert not (tmp_path / "s").exists()

    def test_a_model_without_gradients_has_the_certificate_alone(self, home, tmp_path):
        given = {**options(home, tmp_path / "s"), "model": f"{home}/nets.py:Outside", "indices": range(2)}
        with pytest.raises(ModelError, match="leave both out"):
            bounded(given)
        assert not (tmp_path / "s").exists()
        for name in ("gamma", "gamma_adv", "search_option"):
            del given[name]
        told = Robustness.of(bounded(given))
        assert (told.bounds, told.found) == ({}, {})
        assert told.at(0)["certificate"] > 0


class TestShown:
    def run(self, *words, code: int = 0) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
        assert done.exit_code == code, done.output
        return done.output

    def test_by_the_verb(self, store, certified):
        shown = self.run("distributional", store.folder, "--rho", "0.01", "-q")
        assert "estimate" in shown
        assert "certificate" in shown
        told = json.loads(self.run("distributional", certified.folder, "--rho", "0,0.04", "--json", "-q"))
        assert [figure["rho"] for figure in told["figures"]] == [0, 0.04]
        assert told["loss"] == "0-1"
        assert "gamma: all must" in self.run("distributional", "m", "--gamma", "-1", "-o", "x", code=2)
        printed = self.run("distributional", "no.tsv", "--rho", "0.1", code=2).replace("\n", " ")
        assert "no.tsv is neither a store nor a model" in printed

    def test_both_bounds_stand_at_one_cost_with_its_own_head(self, store):
        shown = self.run("distributional", store.folder, "--rho", "0.01,0.1", "-q").splitlines()
        head = next(line for line in shown if line.startswith("rho "))
        assert re.split(r"  +", head) == ["rho", "certificate", "these images", "outside", "found", "rho with noise",
                                          "inside", "found"]
        told = Robustness.of(store)
        exact = side_by_side(told.bounds["outside"], told.bounds["inside"])
        assert exact.noise_cost == pytest.approx(64 * SIGMA**2)
        place = next(i for i, line in enumerate(shown) if line.startswith("rho + noise"))
        for line, rho in zip(shown[place + 1 : place + 3], (0.01, 0.1), strict=True):
            assert line.split() == [f"{rho:g}", *(f"{value:.4f}" for value in exact.at(rho))]
        assert (told.at(0.1)["beside_smoothed"], told.at(0.1)["beside_base"]) == exact.at(0.1)
        values = [f"{value:.4f}" for value in exact.at(0.1)]
        assert f"| s | 0.1 | {' | '.join(values)} |" in table([replace(told, name="s", rho=(0.1,))], style="markdown")
        assert f"s & 0.1 & {' & '.join(values)}" in table([replace(told, name="s", rho=(0.1,))], style="latex")

    def test_the_eps_that_a_gamma_stands_for(self, home, tmp_path):
        given = options(home, tmp_path / "s", eps_equivalent=True)
        store = bounded(given)
        told, net, data = Robustness.of(store), network(home), load_data("digits")
        images, labels = torch.from_numpy(data.batch(range(IMAGES))), torch.from_numpy(data.labels[:IMAGES])
        for gamma, eps in told.equivalent.items():
            exact = eps_equivalent(net, [(images, labels)], gamma, SIGMA, seed=0)
            assert eps == pytest.approx(exact, rel=0.05)  # other noise
        assert list(told.equivalent) == list(GAMMAS)
        assert [one["gamma"] for one in plain(told)["eps_equivalent"]] == list(GAMMAS)
        shown = [line.split() for line in self.run("distributional", store.folder, "-q").splitlines()]
        place = shown.index(["gamma", "0.5", "3", "400"])
        assert shown[place + 1] == ["eps", *(f"{eps:.3g}" for eps in told.equivalent.values())]
        table = partial(self.run, "table", store.folder, "--radii", "0.1", "--format")
        for gamma, eps in told.equivalent.items():
            assert f"| {told.name} | {gamma:g} | {eps:.3g} |" in table("markdown")
            assert rf"{told.name} & {gamma:g} & {eps:.3g} \\" in table("latex")
            row = next(csv.DictReader(table("csv").splitlines()))
            assert float(row[f"eps_equivalent_of_gamma_{gamma:g}"]) == eps
        told_as_json = json.loads(self.run("table", store.folder, "--radii", "0.1", "--json"))[0]
        assert {one["gamma"]: one["eps"] for one in told_as_json["eps_equivalent"]} == told.equivalent
        assert "nothing is wrong" in self.run("verify", store.folder, "--resample", "4", "--model",
                                              f"{home}/nets.py:Means")
        other = bounded(options(home, tmp_path / "plain"))
        assert "eps_equivalent" not in other.identity.distributional
        assert told.at(0.1) == Robustness.of(other).at(0.1)
        both = list(csv.DictReader(self.run("table", store.folder, other.folder, "--radii", "0.1", "--format", "csv")
                                   .splitlines()))
        assert [bool(row["eps_equivalent_of_gamma_3"]) for row in both] == [True, False]
        with pytest.raises(ConfigError, match="eps-equivalent says which eps"):
            DistributionalConfig.parse(common(home, tmp_path / "x", eps_equivalent=True))

    def test_in_tables(self, store, certified):
        kept = Robustness.of(store)
        (told,) = json.loads(self.run("table", store.folder, "--radii", "0.2", "--json"))
        assert told["figures"] == json.loads(json.dumps([kept.at(0.2**2)]))
        csv = self.run("table", store.folder, "--format", "csv").splitlines()
        assert len(csv) == 1 + len(kept.rho)
        assert float(csv[1].split(",")[csv[0].split(",").index("certificate")]) == kept.at(0)["certificate"]
        both = self.run("table", certified.folder, store.folder)
        assert "ACR" in both
        assert "worst case" in both
        for style in ("markdown", "latex"):
            assert "cross-entropy clipped at 2.303" in self.run("table", store.folder, "--format", style)
        assert "can be merged" in self.run("table", store.folder, store.folder, "--merge", code=2)
        assert "radii of certify" in self.run("table", store.folder, "--norm", "linf", "--radii", "2/255", code=2)
        assert "CSV has one kind" in self.run("table", certified.folder, store.folder, "--format", "csv", code=2)

    def test_everywhere_else(self, store, certified, tmp_path):
        self.run("plot", "distributional", store.folder, "-o", tmp_path / "p.svg")
        drawn = (tmp_path / "p.svg").read_text()
        for words in ("certificate", "outside (estimate)", "inside (estimate)", "worst case found"):
            assert words in drawn
        self.run("plot", "distributional", certified.folder, "-o", tmp_path / "c.svg")
        wrong = self.run("plot", "distributional", certified.folder, store.folder, "-o", tmp_path / "w.svg", code=2)
        assert "different losses" in wrong
        assert "distributional store" in self.run("info", store.folder)
        assert "table" in self.run("report", store.folder, "-o", tmp_path / "r.html", code=1)
        assert "side by side" in self.run("compare", store.folder, store.folder, code=2)
