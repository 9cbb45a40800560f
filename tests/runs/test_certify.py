"""The certification run: images of a data set to a finished store, whatever interrupts it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from printed import plain, store_text, table
from progress_events import sampled
from smoothcert import SmoothedClassifier
from smoothcert.classifiers.folder import read_network
from smoothcert.data import load_data, take_evenly
from smoothcert.errors import ConfigError, IdentityError, InputError, ModelError, SmoothcertError, StoreError
from smoothcert.noise import GaussianNoise
from smoothcert.results.certified import Result, default_radii
from smoothcert.results.curves import certified_curve
from smoothcert.results.predictions import Predicted
from smoothcert.runs.certify import certify, predict, prepare_sampling
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.runs.settings import read_certified
from smoothcert.store.identity_parts import ImageList, describe_images
from smoothcert.store.recertify import recertify, write_recertified
from smoothcert.store.records import Record
from smoothcert.store.store import open_store, read_store
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import split_indices, train

CLI = Path(sys.executable).parent / "smoothcert"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m"
    train(TrainConfig.parse({"data": "digits", "model": "linear", "sigma": 0.25, "epochs": 8, "out": folder}))
    return folder


def config(model: Path, out: Path, **options) -> CertifyConfig:
    return CertifyConfig.parse({"model": str(model), "n": 500, "max_images": 6, "seed": 0, "out": out, **options})


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_a_store_holds_what_the_smoothed_classifier_says(model, tmp_path):
    store = certify(config(model, tmp_path / "s", start=5, every=50, max_images=4, n=1000))
    assert store.complete
    assert store.column("index").tolist() == [5, 105, 255, 355]
    data, (network, card) = load_data("digits"), read_network(model)
    g = SmoothedClassifier(network, card.sigma, 10, seed=0, levels=16)
    for row, index in enumerate((5, 105, 255, 355)):
        found = g.certify(data.image(index), n=1000, index=index)
        assert np.array_equal(store.counts("estimate")[row], found.estimation)
        assert np.array_equal(store.counts("select")[row], found.selection)
        assert store.column("radius")[row] == found.radius
        assert store.column("prediction")[row] == (-1 if found.prediction is None else found.prediction)
        assert store.column("label")[row] == data.labels[index]
    assert not store.column("off_grid").any()


def test_predict_stores_agree_with_the_smoothed_classifier(model, tmp_path):
    told = PredictConfig.parse({"model": str(model), "n": 200, "indices": [9, 3], "seed": 1, "out": tmp_path / "p"})
    store = predict(told)
    network, card = read_network(model)
    g = SmoothedClassifier(network, card.sigma, 10, seed=1, levels=16)
    for row, index in enumerate((9, 3)):
        found = g.predict(load_data("digits").image(index), n=200, index=index)
        assert store.column("p_value")[row] == found.p_value
        assert np.array_equal(store.counts("predict")[row], found.counts)


def test_radii_of_another_norm_are_never_shown_as_l2(model, tmp_path):
    class Other(GaussianNoise):
        kind, norm = "other", "l1"

    store = certify(config(model, tmp_path / "s", noise=Other))
    assert Result.of(store).norm == "l1"
    assert "l1 radii. " in table([Result.of(store)])
    for use in (lambda: Result.of(store).in_norm("l2"), lambda: read_certified(store)):
        with pytest.raises(StoreError, match="l1"):
            use()
    assert "norm" not in certify(config(model, tmp_path / "grid")).identity.raw


def test_several_n_are_looks_at_one_sample(model, tmp_path):
    """The first 100 of predict --n 100,400 are the sample of --n 100; the store's answer is that of the last look."""
    told = {"model": str(model), "max_images": 12, "seed": 1}
    both = predict(PredictConfig.parse({**told, "n": "100,400", "out": tmp_path / "b"}))
    stores = {n: predict(PredictConfig.parse({**told, "n": n, "out": tmp_path / str(n)})) for n in (100, 400)}
    assert stores[100].identity.procedure.n == 100
    assert both.identity.procedure.n == [100, 400]
    assert both.column("prediction").tolist() == stores[400].column("prediction").tolist()
    for history, small in zip(both.histories(0, 12), stores[100].histories(0, 12), strict=True):
        assert np.array_equal(history[0].counts, small[0].counts)
    looks = Predicted.of(both).looks
    for look in looks:
        alone = Predicted.of(stores[look.n])
        assert (look.n, look.correct.tolist(), look.abstained.tolist()) == (
            alone.n, alone.correct.tolist(), alone.abstained.tolist())
    shown = table([Predicted.of(both)], style="csv").splitlines()
    assert [line.split(",")[5] for line in shown] == ["n", "100", "400"]
    assert [line.split()[4] for line in store_text(both).splitlines()[1:3]] == ["100", "400"]
    with pytest.raises(ConfigError, match="ascending"):
        PredictConfig.parse({**told, "n": "400,100", "out": tmp_path / "c"})


def test_results_depend_on_no_batch_size_threads_or_selection(model, tmp_path):
    whole = certify(config(model, tmp_path / "a"))
    batched = certify(config(model, tmp_path / "b", batch_size=7, threads=2))
    torch.set_num_threads(1)
    assert shards(tmp_path / "a") == shards(tmp_path / "b")
    alone = certify(config(model, tmp_path / "c", max_images=None, indices=whole.column("index")[[4, 2]].tolist()))
    assert np.array_equal(alone.counts("estimate"), whole.counts("estimate")[[4, 2]])
    assert batched.identity == whole.identity


def test_stopped_anywhere_the_same_call_finishes(model, tmp_path):
    certify(config(model, tmp_path / "whole", max_images=20))

    class Stopped(BaseException):
        pass

    for stop in (0, 3, 11, 19):
        def progress(event, stop=stop):
            if event.phase == "sampling" and event.done == stop:
                raise Stopped

        with pytest.raises(Stopped):
            certify(config(model, tmp_path / "part", max_images=20), progress)
    told = []
    certify(config(model, tmp_path / "part", max_images=20), sampled(told))
    assert told[0] == 19, "only the image in flight is done again"
    assert shards(tmp_path / "part") == shards(tmp_path / "whole")


SLOW = """
import os, time

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = nn.Linear(64, 10)

    def forward(self, images):
        time.sleep(float(os.environ.get("SLOW", 0)))
        return self.last(images.flatten(1))

def make():
    return Slow()
"""


@pytest.mark.slow
def test_a_command_interrupted_and_then_killed_is_resumed(tmp_path):
    """Slowed down, so that it is stopped in the middle of its work; taken up again at full speed."""
    spec, stopped, rng = _factory(tmp_path, SLOW), tmp_path / "stopped", np.random.default_rng(0)
    command = [str(CLI), "certify", spec, "--data", "digits", "--sigma", "0.5", "--n", "500", "--max-images", "60",
               "--seed", "0", "--engine", "plain", "--batch-size", "100", "--quiet", "-o", str(stopped)]

    def progress() -> int:
        return (stopped / "journal.jsonl").stat().st_size if (stopped / "journal.jsonl").exists() else 0

    for number, code in ((signal.SIGTERM, 1), (signal.SIGKILL, -signal.SIGKILL)):
        before = progress()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                 env={**os.environ, "SLOW": "0.05"})
        while progress() <= before and child.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        child.send_signal(number)
        _, said = child.communicate(timeout=100)
        assert child.returncode == code, said
        assert ("same command" in said) == (number == signal.SIGTERM)
        assert "Traceback" not in said
        assert not read_store(stopped).complete
    for name in ("stopped", "whole"):
        told = config(Path(spec), tmp_path / name, data="digits", sigma=0.5, max_images=60, engine="plain")
        assert certify(told).complete
    assert shards(stopped) == shards(tmp_path / "whole")
    times = [json.loads(line) for line in (stopped / "times.jsonl").read_text().splitlines()]
    assert len(times) <= 60 + 2, "only images in flight were done again"


def test_a_drawn_seed_is_recorded_and_taken_up_again(model, tmp_path):
    first = certify(config(model, tmp_path / "s", seed=None))
    assert certify(config(model, tmp_path / "s", seed=None)).identity.seed == first.identity.seed
    assert certify(config(model, tmp_path / "t", seed=None)).identity.seed != first.identity.seed


@pytest.mark.parametrize(("change", "field"), [
    ({"sigma": 0.5}, "noise.sigma"), ({"n": 600}, "procedure.n"), ({"seed": 3}, "seed"), ({"n0": 50}, "procedure.n0"),
    ({"noise": "gaussian"}, "noise.kind"), ({"start": 1}, r"images\.indices"), ({"split": "train"}, "data.split"),
    ({"method": "cohen"}, "procedure.method"), ({"alpha": 0.01}, "procedure.alpha"), ({"margin": 0.1}, "margin"),
    ({"start": 1, "max_images": None}, r"images\.start"), ({"every": 3, "max_images": None}, r"images\.every"),
    ({"max_images": 12}, "another choice, and not more of the same: it needs another -o"),
])
def test_another_run_in_the_same_folder_is_refused(model, tmp_path, change, field):
    certify(config(model, tmp_path / "s"))
    before = shards(tmp_path / "s")
    with pytest.raises(IdentityError, match=field):
        certify(config(model, tmp_path / "s", **change))
    assert shards(tmp_path / "s") == before


def test_another_model_in_the_same_folder_is_refused(model, tmp_path):
    certify(config(model, tmp_path / "s"))
    train(TrainConfig.parse({"data": "digits", "model": "linear", "sigma": 0.25, "epochs": 1, "out": tmp_path / "o"}))
    with pytest.raises(IdentityError, match=r"model\.sha256"):
        certify(config(tmp_path / "o", tmp_path / "s"))


def test_the_models_own_data_and_sigma_are_the_defaults(model, tmp_path):
    store = certify(config(model, tmp_path / "s"))
    assert store.identity.data.name == "digits"
    assert store.identity.noise.sigma == 0.25
    assert store.identity.noise.levels == 16


@pytest.mark.parametrize(("options", "kind", "words"), [
    ({"sigma": 0}, ConfigError, "sigma"), ({"alpha": 1.5}, ConfigError, "alpha"), ({"n": 0}, ConfigError, "n:"),
    ({"method": "cohn"}, ConfigError, "cohen"), ({"noise": "gausian"}, ConfigError, "gaussian"),
    ({"start": 400}, InputError, "359"), ({"indices": [1, 1]}, SmoothcertError, "named twice"),
    ({"indices": [1000]}, SmoothcertError, "359"), ({"split": "tset"}, SmoothcertError, "test"),
    ({"data": "mnits"}, InputError, "mnist"),
    ({"model": "no/such/dir"}, SmoothcertError, "no model folder no/such/dir"),
    ({"data": "parquet:/no/such.parquet"}, SmoothcertError, "such.parquet"),
    ({"indices": [1], "start": 3}, SmoothcertError, "indices"), ({"num_classes": 1}, ConfigError, "num_classes"),
])
def test_bad_requests_leave_nothing_behind(model, tmp_path, options, kind, words):
    with pytest.raises(kind, match=words):
        certify(config(options.pop("model", model), tmp_path / "s", **{"max_images": None, **options}))
    assert not (tmp_path / "s").exists()


def test_all_mistakes_come_together():
    with pytest.raises(ConfigError) as caught:
        CertifyConfig.parse({"model": "m", "out": "s", "sigma": -1, "alpha": 2, "n": 0, "metod": "cohen"})
    assert len(caught.value.problems) == 4
    assert 'did you mean "method"' in str(caught.value)


def _factory(tmp_path: Path, body: str) -> str:
    (tmp_path / "mine.py").write_text("import torch\nfrom torch import nn\n" + body)
    return f"{tmp_path / 'mine.py'}:make"


@pytest.mark.parametrize(("body", "words"), [
    ("def make(): return nn.Identity()", r"got \(N, 1, 8, 8\)"),
    ("def make(): return nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten())", "cannot take"),
    ("def make(): return lambda x: torch.full((len(x), 10), float('nan'))", "NaN"),
    ("def make(): return lambda x: 'cat'", "str"),
])
def test_models_that_break_the_contract_are_refused_at_the_door(tmp_path, body, words):
    with pytest.raises(ModelError, match=words):
        certify(config(Path(_factory(tmp_path, body)), tmp_path / "s", sigma=0.5, data="digits"))
    assert not (tmp_path / "s").exists()


def test_a_nan_weight_is_noticed(model, tmp_path):
    network, _ = read_network(model)
    with torch.no_grad():
        next(network.parameters())[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        SmoothedClassifier(network, 0.5, 10).certify(load_data("digits").image(0), n=100)


def test_a_user_file_needs_a_sigma(tmp_path):
    body = "def make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))"
    with pytest.raises(InputError, match="sigma"):
        certify(config(Path(_factory(tmp_path, body)), tmp_path / "s", data="digits"))


def test_a_callable_is_identified_by_its_answers_or_its_id(tmp_path):
    body = "def make():\n    w = torch.arange(640.).reshape(64, 10).sin()\n    return lambda x: x.flatten(1) @ w"
    spec = Path(_factory(tmp_path, body))
    store = certify(config(spec, tmp_path / "a", sigma=0.5, data="digits"))
    assert store.identity.model.by == "probe"
    certify(config(spec, tmp_path / "a", sigma=0.5, data="digits"))
    named = certify(config(spec, tmp_path / "b", sigma=0.5, data="digits", model_id="sines-1"))
    assert named.identity.model.by == "id"
    assert named.identity.model.id == "sines-1"


def test_one_image_and_one_sample(model, tmp_path):
    store = certify(config(model, tmp_path / "s", n=1, n0=1, max_images=1))
    assert store.records.num_rows == 1
    assert store.column("prediction").tolist() == [-1]


@pytest.mark.parametrize(("indices", "expected"), [
    ([5], {"count": 1, "start": 5, "every": 1}), ([0, 50, 100], {"count": 3, "start": 0, "every": 50}),
    ([3, 1], {"count": 2, "indices": [3, 1]}), ([0, 1, 3], {"count": 3, "indices": [0, 1, 3]}),
])
def test_which_images_in_brief(indices, expected):
    assert describe_images(np.array(indices)) == expected


def test_a_folder_sorted_by_class_shows_every_class(tmp_path):
    for split in ("train", "test"):
        for name, level in (("a", 20), ("b", 120), ("c", 220)):
            (tmp_path / "folder" / split / name).mkdir(parents=True)
            for k in range(7):
                Image.new("L", (8, 8), level + k).save(tmp_path / "folder" / split / name / f"{k}.png")
    data, spec = f"imagefolder:{tmp_path / 'folder'}", _factory(
        tmp_path, "def make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))")
    told = {"model": spec, "data": data, "sigma": 0.25, "n": 100, "seed": 0}
    for verb, kind in ((certify, CertifyConfig), (predict, PredictConfig)):
        store = verb(kind.parse({**told, "max_images": 6, "out": tmp_path / verb.__name__}))
        assert store.column("label").tolist() == [0, 0, 1, 1, 2, 2]
        asked = TrainConfig.parse({"data": data, "sigma": 0.25, "max_images": 6, "validation": 0, "out": "unused"})
        assert split_indices(load_data(data), asked)[0].tolist() == store.column("index").tolist()
    first = predict(PredictConfig.parse({**told, "indices": range(6), "out": tmp_path / "first"}))
    assert "6 images show 1 of the 3 classes (a), and the figures speak of no other" in store_text(first)
    assert "classes" not in store_text(store)


@pytest.mark.parametrize("told", [
    {"count": 1500, "start": 0, "every": 1, "of": 9999}, {"count": 1100, "start": 7, "every": 20, "of": 1150},
])
def test_many_evenly_spaced_images_are_known_without_a_list(told):
    indices = take_evenly(told["start"] + told["every"] * np.arange(told["of"]), told["count"])
    assert describe_images(indices) == told
    assert np.array_equal(ImageList.model_validate(told).at(np.arange(told["count"])), indices)
    for other in (indices[::-1], np.delete(indices, 3), np.roll(indices, 1)):
        assert describe_images(other) == {"count": len(other), "indices": "see the records"}


def test_a_store_begun_with_the_first_images_keeps_them(model, tmp_path):
    """As an older smoothcert chose them for --max-images; another process, without the store, takes the same ones."""
    asked = config(model, tmp_path / "s")
    whole = certify(config(model, tmp_path / "whole", max_images=None, indices=range(6)))
    with open_store(tmp_path / "s", whole.identity, {}) as store:
        store.add(2, Record.from_row(whole.records.to_pylist()[2]))
    run = prepare_sampling(asked, asked.plan)
    shutil.copytree(tmp_path / "s", tmp_path / "begun")
    shutil.rmtree(tmp_path / "s")
    assert run.indices.tolist() == run.reopen()().indices.tolist() == list(range(6))
    (tmp_path / "begun").rename(tmp_path / "s")
    assert shards(certify(asked).folder) == shards(whole.folder)


def test_mnist_from_the_hub_layout(data_dir, tmp_path):
    data = load_data("mnist", data_dir=data_dir)
    body = "def make(): return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))"
    store = certify(config(Path(_factory(tmp_path, body)), tmp_path / "s", sigma=0.5, data="mnist", data_dir=data_dir,
                           every=50, max_images=3, n=100))
    assert store.column("label").tolist() == data.labels[[0, 5000, 9950]].tolist()
    assert not store.column("off_grid").any()


def test_a_store_of_another_kind_is_refused(model, tmp_path):
    certify(config(model, tmp_path / "s"))
    with pytest.raises((IdentityError, StoreError), match="kind"):
        predict(PredictConfig.parse({"model": str(model), "n": 200, "max_images": 6, "out": tmp_path / "s"}))


@pytest.fixture(scope="module")
def decided(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("sequential") / "decided"
    return certify(config(model, out, n=None, n_max=4000, radii="0.1,0.2", max_images=40))


class TestSequentialStores:
    """Stores of sequential runs: counts at every look, other alphas, and what their tables may say."""

    def test_images_stop_at_different_looks(self, decided):
        ends = {history[-1].counts.sum() for history in decided.histories()}
        assert min(ends) < 800 < max(ends)
        assert decided.identity.procedure.design == "radii"

    def test_recertify_repeats_and_follows_alpha(self, decided):
        same, procedure = recertify(decided)
        assert np.array_equal(same.radius, decided.column("radius"))
        assert np.array_equal(same.prediction, decided.column("prediction"))
        assert procedure == decided.identity.procedure.raw
        stricter, procedure = recertify(decided, alpha=1e-5)
        assert (stricter.radius <= same.radius).all()
        assert (stricter.radius < same.radius).any()
        assert procedure["decided"] is False
        smaller, _ = recertify(decided, margin=0.1)
        assert (smaller.radius <= same.radius).all()

    def test_fixed_procedures_are_refused_on_looks(self, decided):
        with pytest.raises(InputError, match="no sequential form"):
            recertify(decided, method="t-certify")

    def test_recertified_stores_can_be_recertified(self, decided, tmp_path):
        answers, procedure = recertify(decided, alpha=1e-4)
        write_recertified(tmp_path / "again", decided, answers, procedure)
        back, _ = recertify(read_store(tmp_path / "again"), alpha=decided.identity.procedure.alpha)
        assert np.array_equal(back.radius, decided.column("radius"))

    def test_tables_call_undecided_radii_a_lower_bound(self, decided):
        result = Result.of(decided)
        assert default_radii([result]) == [0.1, 0.2]
        text = table([result], [0.1, 0.15])
        assert "lower bound" in text
        assert "ACR >= " in text
        cells = next(line for line in text.splitlines() if line.startswith("certified accuracy")).split()[-2:]
        assert not cells[0].startswith(">=")
        assert cells[1].startswith(">=")
        assert certified_curve(result).name.endswith("(lower bound)")
        told = plain(result, [0.1])
        assert told["lower_bound"]
        assert told["decided"] == (0.1, 0.2)
        answers, procedure = recertify(decided, alpha=1e-5)
        other = Result.build(decided, None, procedure, answers.prediction, answers.radius)
        assert (other.decided, other.asked_to) == ((), None)
        assert not other.is_decided(0.1)

    def test_decided_accuracy_is_that_of_all_samples(self, model, decided, tmp_path):
        """At decided radii early stopping loses nothing here but what spending alpha over looks costs."""
        whole = certify(config(model, tmp_path / "whole", n=4000, max_images=40))
        for radius in (0.1, 0.2):
            stopped, full = (int((s.correct & (s.column("radius") >= radius)).sum()) for s in (decided, whole))
            assert full - 2 <= stopped <= full

    def test_curves_size_n_for_each_image(self, model, tmp_path):
        store = certify(config(model, tmp_path / "curve", n=None, n_max=4000, curve_loss=0.1, max_images=40))
        sizes = store.counts("estimate").sum(axis=1)
        assert len(set(sizes)) > 3
        assert Result.of(store).decided is None
        whole = certify(config(model, tmp_path / "whole", n=4000, max_images=40))
        certain = (store.column("radius") > 0) & (whole.column("radius") > 0.05)
        assert (store.column("radius")[certain]).mean() > 0.85 * whole.column("radius")[certain].mean()
        recertify(store, method="t-certify", alpha=0.01)

    def test_sequential_predictions_agree_with_fixed_ones(self, model, tmp_path):
        told = {"model": str(model), "max_images": 40, "seed": 0}
        stopped = predict(PredictConfig.parse({**told, "n_max": 2000, "out": tmp_path / "p"}))
        fixed = predict(PredictConfig.parse({**told, "n": 2000, "out": tmp_path / "f"}))
        both = (stopped.column("prediction") >= 0) & (fixed.column("prediction") >= 0)
        assert np.array_equal(stopped.column("prediction")[both], fixed.column("prediction")[both])
        assert stopped.counts("predict").sum() < fixed.counts("predict").sum() / 3

    @pytest.mark.parametrize(("options", "message"), [
        ({"n": 100, "n_max": 200, "radii": "0.1"}, "give one of them"), ({"curve_loss": 0.1, "n": None}, "give n_max"),
        ({"n": None, "n_max": 100}, "either radii"),
        ({"n": None, "n_max": 100, "radii": "0.1", "curve_loss": 0.1}, "give one of them"),
    ])
    def test_designs_exclude_one_another(self, model, tmp_path, options, message):
        with pytest.raises(ConfigError, match=message):
            config(model, tmp_path / "s", **options)


def test_a_resumed_run_takes_the_engine_it_began_with(model, tmp_path, monkeypatch):
    first = config(model, tmp_path / "s", engine="plain", max_images=4)

    class Stopped(BaseException):
        pass

    def stop(event):
        if event.done == 2 and event.phase == "sampling":
            raise Stopped

    with pytest.raises(Stopped):
        certify(first, stop)
    assert certify(config(model, tmp_path / "s", max_images=4)).identity.engine == "plain"


def test_linear_models_are_sampled_in_logit_space_and_resume(model, tmp_path):
    for _ in range(2):
        store = certify(config(model, tmp_path / "s", noise="gaussian", max_images=4))
        assert (store.identity.space, store.identity.engine) == ("logits", "exact")
        assert store.identity.noise.format == "sfc64-bm-v1"
    with pytest.raises(IdentityError, match="space"):
        certify(config(model, tmp_path / "s", noise="gaussian", max_images=4, space="pixels"))


def test_progress_tells_samples_and_what_stopping_early_saved(model, tmp_path):
    told = []
    certify(config(model, tmp_path / "s", n=None, n_max=4000, radii="0.1", max_images=5),
            lambda event: told.append(event.words))
    assert "saved by stopping early" in told[-1]
    assert "samples" in told[-1]
    certify(config(model, tmp_path / "f", n=1000, max_images=5), lambda event: told.append(event.words))
    assert told[-1].startswith("5.5k samples")
