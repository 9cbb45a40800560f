"""The attack run: attacked images, what PREDICT says of them, and how that stands to closed forms and certificates."""

import json
import math
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nets import write_nets
from printed import store_text
from progress_events import sampled
from smoothcert.cli.main import app
from smoothcert.data import load_data, take_evenly
from smoothcert.errors import ConfigError, IdentityError, InputError, ModelError, SmoothcertError, StoreError
from smoothcert.report.describe import Description
from smoothcert.results.attacks import empirical_curve, outcomes
from smoothcert.results.certified import Result
from smoothcert.results.compare import beside, under_attack, violations
from smoothcert.results.predictions import Predicted
from smoothcert.runs.attack import PART, attack, prepare_attack
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.options import AttackConfig, CertifyConfig, PredictConfig
from smoothcert.stats import FixedPredict, History, Look
from smoothcert.store.adversaries import read_adversaries
from smoothcert.store.recertify import recertify
from smoothcert.store.store import Record, Store, Tally, read_store, write_store
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify
from stores import change_manifest

NETS = """

class Other(Means):
    def __init__(self):
        super().__init__()
        self.last.bias.data += 1

class Half(torch.nn.Module):
    '''Class 1 where w (x - 1/2) > 0, else class 0.'''
    def __init__(self):
        super().__init__()
        w = torch.randn(16, generator=torch.Generator().manual_seed(3))
        self.register_buffer("w", w / w.norm())

    def forward(self, x):
        side = (x.flatten(1) - .5) @ self.w
        return torch.stack([-5 * side, 5 * side], 1)

class Outside:
    def __init__(self):
        self.net = Means()
    def __call__(self, x):
        return self.net(torch.from_numpy(x.numpy())).detach()
"""

SIGMA = 0.25


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_nets(folder, 4, NETS)
    rng = np.random.default_rng(0)
    pixels = rng.integers(55, 201, (48, 16))
    w = torch.randn(16, generator=torch.Generator().manual_seed(3)).numpy()
    labels = ((pixels / 255 - 0.5) @ w > 0).astype(int)
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": [row.reshape(4, 4).tolist() for row in pixels], "label": labels.tolist()}),
                       folder / f"{split}.parquet")
    return folder


def digits(home: Path, out: Path, **more) -> dict:
    return {"model": f"{home}/nets.py:Means", "data": "digits", "sigma": SIGMA, "seed": 1, "engine": "plain",
            "max_images": 20, "steps": 3, "n": 60, "out": out, **more}


def halves(home: Path, out: Path, **more) -> dict:
    return {"model": f"{home}/nets.py:Half", "data": f"parquet:{home}", "sigma": SIGMA, "seed": 1, "engine": "plain",
            "num_classes": 2, "n": 1000, "out": out, **more}


def attacked(**options) -> Store:
    return attack(AttackConfig.parse(options))


def files(folder: Path) -> dict[str, bytes]:
    """What a finished store must have in the same bytes however it came about."""
    found = [*folder.glob("*.parquet"), *folder.glob("adversaries*/*"), *folder.glob("adversaries.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


@pytest.fixture(scope="module")
def certified(home, tmp_path_factory) -> Store:
    out = tmp_path_factory.mktemp("certified") / "c"
    options = {**digits(home, out, n=500), "max_images": 30}
    del options["steps"]
    return certify(CertifyConfig.parse(options))


@pytest.fixture(scope="module")
def half_certified(home, tmp_path_factory) -> Store:
    return certify(CertifyConfig.parse(halves(home, tmp_path_factory.mktemp("half") / "c")))


@pytest.fixture(scope="module")
def halved(home, tmp_path_factory) -> Store:
    out = tmp_path_factory.mktemp("half") / "s"
    return attacked(**halves(home, out, eps="0.05,0.3", m="0,4", noise="gaussian", space="pixels"))


@pytest.fixture(scope="module")
def grid(home, tmp_path_factory) -> Store:
    """Digits at two eps and three m, with the attacked images."""
    return attacked(**digits(home, tmp_path_factory.mktemp("grid") / "s", eps="0.5,1", m="0,1,4", n="20,60",
                             save_adversaries=True))


class TestClosedForms:
    """A half space: g is its side, p = Phi(margin / sigma), the attack's best step is eps straight to the boundary."""

    def margins(self, home: Path, store: Store) -> np.ndarray:
        data = load_data(f"parquet:{home}", num_classes=2)
        w = torch.randn(16, generator=torch.Generator().manual_seed(3)).double()
        images = data.batch(store.column("index")).reshape(-1, 16).astype(np.float64)
        return np.abs((images - 0.5) @ (w / w.norm()).numpy())

    def test_the_perturbation_has_norm_eps_and_votes_follow(self, home, halved):
        eps, margin, n = halved.column("eps"), self.margins(home, halved), 1000
        assert np.all(halved.column("l2") <= eps)
        np.testing.assert_allclose(halved.column("l2"), eps, rtol=1e-4)
        p = np.array([0.5 * math.erfc(-(a - b) / SIGMA / 2**0.5) for a, b in zip(margin, eps, strict=True)])
        right = halved.counts("predict")[np.arange(len(eps)), halved.column("label")]
        score = (right - n * p) / np.sqrt(n * p * (1 - p))
        assert np.abs(score).max() < 5
        assert abs(score.mean()) < 1

    def test_only_an_attack_beyond_the_margin_changes_the_vote(self, home, halved):
        eps, margin = halved.column("eps"), self.margins(home, halved)
        answer, label = halved.column("prediction"), halved.column("label")
        beyond, within = eps > margin + 0.05, eps < margin - 0.05
        assert beyond.sum() > 50
        assert within.sum() > 30
        assert np.all(answer[beyond] == 1 - label[beyond])
        assert np.all(answer[within] == label[within])

    def test_no_attack_inside_a_certified_radius_changes_the_answer(self, halved, half_certified):
        found = violations(halved, half_certified)
        assert found.pairs > 40
        assert found.changed == found.images_changed == 0
        assert found.chance == 1

    def test_multiples_of_the_radius_reach_the_boundary_or_not(self, home, half_certified, tmp_path):
        store = attacked(**halves(home, tmp_path / "s", eps_from=half_certified.folder, times="0.9,3"))
        certificates = {i: (c, r) for i, c, r in zip(*(half_certified.column(name).tolist() for name in
                                                      ("index", "prediction", "radius")), strict=True) if r > 0}
        assert set(store.column("index").tolist()) == set(certificates)
        times, eps = store.column("times"), store.column("eps")
        for row, index in enumerate(store.column("index").tolist()):
            kind, radius = certificates[index]
            assert store.column("attacked")[row] == kind
            assert eps[row] == times[row] * radius
        assert found_changed(store, 0.9) == 0
        assert violations(store, half_certified).pairs == np.sum(times == 0.9)
        beyond = eps > self.margins(home, store) + 0.05
        assert beyond.sum() > 20
        assert np.all(store.column("prediction")[beyond] != store.column("attacked")[beyond])


def found_changed(store: Store, size: float) -> float:
    return sum(o.changed for o in outcomes(store) if o.size == size)


class TestLooks:
    def test_looks_are_prefixes_of_one_sample_on_one_image(self, home, grid, tmp_path):
        small = attacked(**digits(home, tmp_path / "s", eps="0.5,1", m="0,1,4", n=20))
        histories = grid.histories()
        assert [len(history) for history in histories] == [2] * len(histories)
        first = np.array([history[0].counts for history in histories])
        assert np.array_equal(first, small.counts("predict"))
        assert np.array_equal(small.column("l2"), grid.column("l2"))
        assert np.all(grid.counts("predict") >= first)
        assert set(grid.counts("predict").sum(axis=1)) == {60}

    def test_each_look_is_judged_by_itself(self, grid):
        plan = FixedPredict((20, 60), 0.001)
        least = [20 if o.m == 4 and o.size == 1 else 0 for o in outcomes(grid)]
        assert sum(least) == 40
        (early,) = [o for o in outcomes(grid) if (o.size, o.m, o.n) == (1.0, 4, 20)]
        rows = np.flatnonzero((grid.column("eps") == 1) & (grid.column("m") == 4))
        answers = plan.judge([grid.histories()[row][:1] for row in rows]).prediction
        assert early.accuracy == np.mean(answers == grid.column("label")[rows])
        assert early.abstained == np.mean(answers < 0)

    def test_a_plan_of_several_looks(self):
        plan = FixedPredict([100, 1000], 0.01)
        assert plan.most() == 1000
        assert plan.identity() == {"method": "predict", "alpha": 0.01, "n": [100, 1000]}
        assert hash(plan) == hash(FixedPredict((100, 1000), 0.01))
        history: History = []
        drawn = []
        while (draw := plan.next([history])[0]) is not None:
            drawn.append(draw.n)
            history.append(Look("predict", np.array([sum(drawn) - 4, 4])))
        assert drawn == [100, 900]
        for k, n in enumerate((100, 1000)):
            alone = FixedPredict(n, 0.01).judge([[history[k]]])
            assert plan.judge([history[: k + 1]]).values["p_value"] == alone.values["p_value"]
        for wrong in ([], [10, 10], [20, 10], [0, 5], 0, 1.5):
            with pytest.raises(InputError, match="n must"):
                FixedPredict(wrong, 0.01)  # type: ignore[arg-type]

    def test_a_run_of_one_n_is_that_of_predict_on_the_clean_rows(self, home, grid, tmp_path):
        options = digits(home, tmp_path / "p")
        del options["steps"]
        plain = predict(PredictConfig.parse(options))
        clean = np.flatnonzero(grid.column("eps") == 0)
        assert np.array_equal(grid.counts("predict")[clean], plain.counts("predict"))
        assert np.array_equal(grid.column("prediction")[clean], plain.column("prediction"))


class TestSameBytes:
    def test_stopped_at_any_record_the_same_call_finishes(self, home, grid, tmp_path):
        class Stopped(BaseException):
            pass

        for stop in (0, 1, 17, 18, 100, 139):
            def progress(event, stop=stop):
                assert event.phase != "sampling" or event.total == 140
                if event.phase == "sampling" and event.done == stop:
                    raise Stopped

            with pytest.raises(Stopped):
                attack(AttackConfig.parse(self.options(home, tmp_path)), progress)
        told = []
        store = attack(AttackConfig.parse(self.options(home, tmp_path)),
                       sampled(told))
        assert set(told) == {139, 140}
        assert files(store.folder) == files(grid.folder)
        assert read_store(store.folder).identity == grid.identity

    def test_finished_it_only_answers(self, home, grid):
        before = files(grid.folder)
        again = attack(AttackConfig.parse(self.options(home, grid.folder.parent)))
        assert again.records.equals(grid.records)
        assert files(grid.folder) == before

    def test_the_batch_size_changes_nothing(self, home, grid, tmp_path):
        store = attack(AttackConfig.parse({**self.options(home, tmp_path), "batch_size": 33}))
        assert files(store.folder) == files(grid.folder)

    def test_an_attack_runs_on_one_thread_whatever_the_run_may_use(self, home, tmp_path, monkeypatch):
        seen = []

        def told(*given, **more):
            seen.append(torch.get_num_threads())
            return given[2]

        monkeypatch.setattr("smoothcert.runs.attack.attack_images", told)
        attacked(**digits(home, tmp_path / "s", eps="1", max_images=2, threads=2))
        after = torch.get_num_threads()
        torch.set_num_threads(1)
        assert (set(seen), after) == ({1}, 2)

    def test_a_setting_does_not_depend_on_its_company(self, home, grid, tmp_path):
        store = attacked(**digits(home, tmp_path / "s", eps="1", m="4", n="20,60"))
        rows = np.flatnonzero((grid.column("eps") == 0) | ((grid.column("eps") == 1) & (grid.column("m") == 4)))
        assert grid.records.take(rows).equals(store.records)

    @pytest.mark.slow
    def test_two_processes_write_what_one_writes(self, home, grid, tmp_path):
        store = attack(AttackConfig.parse({**self.options(home, tmp_path), "workers": 2}))
        assert files(store.folder) == files(grid.folder)

    def test_another_attack_in_the_same_folder_is_refused(self, home, grid):
        for change, field in (({"m": "0,1"}, r"attack\.m"), ({"eps": "0.5,2"}, r"attack\.eps"),
                              ({"n": 20}, "procedure"),
                              ({"attack": "ddn"}, r"attack\.name"), ({"attack_option": ["stop=0.1"]}, "stop"),
                              ({"save_adversaries": False}, "adversaries"), ({"target": 3}, "target")):
            with pytest.raises(IdentityError, match=field):
                attack(AttackConfig.parse({**self.options(home, grid.folder.parent), **change}))
        options = digits(home, grid.folder)
        del options["steps"]
        with pytest.raises(IdentityError, match="kind: stored 'attack', asked 'predict'"):
            predict(PredictConfig.parse(options))

    @staticmethod
    def options(home, folder):
        return digits(home, folder / "s", eps="0.5,1", m="0,1,4", n="20,60", save_adversaries=True)


class TestNoise:
    def test_fewer_copies_are_the_first_of_more(self, home, tmp_path):
        run, reseeded = (prepare_attack(AttackConfig.parse(
            {**digits(home, tmp_path / "s", eps="1", m="2,8"), "seed": seed})) for seed in (1, 2))
        eight, two = run._noise(8, [3, 5]), run._noise(2, [5])
        assert torch.equal(eight[1:, :2], two)
        assert not torch.equal(eight[0], eight[1])
        assert abs(eight.std() / SIGMA - 1) < 0.1
        other = reseeded._noise(8, [3])
        assert not torch.equal(other, eight[:1])

    def test_an_attack_sees_other_noise_than_the_prediction(self, home, tmp_path):
        run = prepare_attack(AttackConfig.parse(digits(home, tmp_path / "s", eps="1")))
        from smoothcert.noise import open_stream

        predicted = np.empty((4, 64), dtype=np.float32)
        open_stream("sfc64-v1", 1, 0, "predict", 64).fill(predicted)
        seen = run._noise(4, [0]).flatten(2)[0] / SIGMA
        assert np.abs(np.corrcoef(predicted.ravel(), seen.numpy().ravel())[0, 1]) < 0.3


class TestRows:
    def test_every_image_has_a_row_for_every_setting_clean_first(self, grid):
        rows = list(zip(*(grid.column(name).tolist() for name in ("index", "eps", "m", "steps")), strict=True))
        assert rows == [(i, *setting) for i in take_evenly(np.arange(359), 20) for setting in
                        [(0.0, 0, 0), *((eps, m, 3) for eps in (0.5, 1.0) for m in (0, 1, 4))]]
        assert grid.records.column("times").null_count == len(rows)
        assert np.array_equal(grid.column("attacked"), grid.column("label"))
        clean = grid.column("eps") == 0
        assert not grid.column("l2")[clean].any()
        assert np.all(grid.column("l2")[~clean] > 0.4)

    def test_an_l_inf_attack_keeps_its_own_norm(self, home, tmp_path):
        store = attacked(**digits(home, tmp_path / "s", eps="0.1", attack_option=["norm=linf"], max_images=4))
        moved = store.column("eps") > 0
        assert np.all(store.column("linf")[moved] <= 0.1)
        assert np.all(store.column("linf")[moved] > 0.099)
        assert np.all(store.column("l2")[moved] > 0.1)
        assert "mean linf" in store_text(store)

    @pytest.mark.parametrize("more", [
        {"attack": "ddn", "attack_option": ["gamma=null"]}, {"attack": "stein", "attack_option": ["hard=true"]},
        {"attack_option": ["surrogate=wrong", "stop=0.2"]}, {"noise": "gaussian"}, {"precision": "bf16"},
        {"noise_format": "philox-v1"}, {"model_id": "means"}, {"indices": "7,3"},
    ])
    def test_options_work(self, home, tmp_path, more):
        options = digits(home, tmp_path / "s", eps="1", max_images=3, **more)
        if "indices" in more:
            del options["max_images"]
        store = attacked(**options)
        assert store.complete
        assert np.all(store.column("l2") <= store.column("eps"))

    def test_towards_a_class(self, home, tmp_path):
        labels = load_data("digits").labels
        store = attacked(**digits(home, tmp_path / "s", eps="4", target=3, steps=10))
        assert store.column("index")[::2].tolist() == take_evenly(np.flatnonzero(labels != 3), 20).tolist()
        assert set(store.column("attacked").tolist()) == {3}
        clean, moved = outcomes(store)
        assert clean.reached == 0
        assert moved.reached is not None
        assert moved.reached > 0.8
        assert "towards class 3" in store_text(store)

    def test_a_random_classifier_is_attacked_under_own_randomness(self, home, tmp_path):
        options = digits(home, tmp_path / "a", eps="1", max_images=3, model=f"{home}/nets.py:Walk")
        one, two = attacked(**options), attacked(**{**options, "out": tmp_path / "b"})
        assert files(one.folder) == files(two.folder)
        assert outcomes(one)[1].l2 > 0.9


class TestFromCertificates:
    def test_sigma_data_and_images_come_from_the_store(self, home, certified, tmp_path):
        options = digits(home, tmp_path / "s", eps_from=certified.folder, times="0.5,2")
        for name in ("sigma", "data", "max_images"):
            del options[name]
        store = attacked(**options)
        radius = certified.column("radius")
        assert store.identity.noise.sigma == SIGMA
        assert store.identity.data.name == "digits"
        assert np.unique(store.column("index")).tolist() == certified.column("index")[radius > 0].tolist()
        wrong = certified.column("prediction") != certified.column("label")
        assert np.any(wrong & (radius > 0)), "certified in a wrong class: attacked all the same"
        found = violations(store, certified)
        assert found.pairs == np.sum(radius > 0)
        assert found.changed == 0

    def test_only_right_leaves_out_certificates_of_a_wrong_class(self, home, certified, tmp_path):
        options = digits(home, tmp_path / "s", eps_from=certified.folder, times="1", only_right=True)
        del options["max_images"]
        store = attacked(**options)
        right = (certified.column("radius") > 0) & certified.correct
        assert np.unique(store.column("index")).tolist() == certified.column("index")[right].tolist()
        assert (store.column("attacked") == store.column("label")).all()
        assert store.identity.attack.only_right
        wrong = certified.column("index")[(certified.column("radius") > 0) & ~certified.correct]
        with pytest.raises(InputError, match="certified and right"):
            attacked(**{**options, "out": tmp_path / "t", "indices": ",".join(map(str, wrong))})

    def test_image_options_choose_among_its_images(self, home, certified, tmp_path):
        held = certified.column("index")[certified.column("radius") > 0]
        options = digits(home, tmp_path / "s", eps_from=certified.folder, start=2, every=2, max_images=3)
        run = prepare_attack(AttackConfig.parse(options))
        assert run.base.indices.tolist() == take_evenly(held[(held >= 2) & (held % 2 == 0)], 3).tolist()
        with pytest.raises(InputError, match="no image is left"):
            attacked(**digits(home, tmp_path / "t", eps_from=certified.folder, indices="1", max_images=None))

    def test_those_beside_a_store_are_chosen_among_its_images(self, home, certified, tmp_path):
        options = digits(home, tmp_path / "s", eps="1", certified=certified.folder, max_images=3)
        run = prepare_attack(AttackConfig.parse(options))
        assert run.base.indices.tolist() == take_evenly(certified.column("index"), 3).tolist()
        with pytest.raises(InputError, match="no image is left"):
            attacked(**{**options, "start": 1, "every": 400})

    @pytest.mark.parametrize(("change", "words"), [
        ({"sigma": 0.5}, r"noise\.sigma: there 0\.25, here 0\.5"), ({"split": "train"}, r"data\.split"),
        ({"model": "nets.py:Other"}, r"  - model"),
    ])
    @pytest.mark.parametrize("option", ["eps_from", "certified"])
    def test_certificates_of_something_else_are_refused(self, home, certified, tmp_path, option, change, words):
        if "model" in change:
            change = {"model": f"{home}/{change['model']}"}
        eps = {"eps": "1"} if option == "certified" else {}
        with pytest.raises(StoreError, match=words):
            attacked(**{**digits(home, tmp_path / "s", **eps, **{option: certified.folder}), **change})
        assert not (tmp_path / "s").exists()

    def test_so_are_stores_that_hold_no_or_other_certificates(self, home, grid, certified, tmp_path):
        for options in ({"eps": "1", "certified": grid.folder}, {"eps_from": grid.folder}):
            with pytest.raises(StoreError, match="certify"):
                attacked(**digits(home, tmp_path / "s", **options))
        with pytest.raises(StoreError, match="no certificates for 2 of the 32 images"):
            attacked(**digits(home, tmp_path / "s", eps="1", certified=certified.folder, max_images=None,
                              indices=[*certified.column("index").tolist(), 1, 2]))
        unfinished = write_like(certified, tmp_path / "u", complete=False)
        with pytest.raises(StoreError, match="not complete"):
            attacked(**digits(home, tmp_path / "s", eps_from=unfinished))


def write_like(store: Store, folder: Path, complete: bool, **identity) -> Path:
    write_store(folder, {**store.identity.raw, **identity}, {},
                [Record.from_row(row) for row in store.records.to_pylist()])
    change_manifest(folder, lambda content: content.update(complete=complete))
    return folder


@pytest.fixture(scope="module")
def pictured(home) -> Path:
    """16 images of 4 x 4 pixels in a folder for each of two classes, and lists of these in both orders."""
    for label, image in enumerate(np.random.default_rng(5).integers(0, 256, (16, 4, 4), dtype=np.uint8)):
        folder = home / "pictured" / ("ant", "bee")[label % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{label:02}.png")
    for name, classes in (("ant-bee", "ant\nbee\n"), ("bee-ant", "bee\nant\n")):
        (home / f"{name}.txt").write_text(classes)
    return home / "pictured"


class TestOtherOrdersOfClasses:
    def options(self, home: Path, pictured: Path, order: str, out: Path, **more) -> dict:
        return {"model": f"{home}/nets.py:Half", "data": f"imagefolder:{pictured}", "sigma": SIGMA, "seed": 1,
                "engine": "plain", "classes": home / f"{order}.txt", "n": 60, "out": out, **more}

    def test_another_order_of_classes_answers_about_the_same_images(
            self, home, pictured, tmp_path):
        options = partial(self.options, home, pictured)
        store = attacked(**options("ant-bee", tmp_path / "a", eps="0.5", m=2, steps=2, save_adversaries=True))
        right = []
        for order in ("ant-bee", "bee-ant"):
            found = predict(PredictConfig.parse(options(order, tmp_path / order, adversaries=store.folder)))
            assert found.identity.adversaries["eps"] == 0.5
            right.append(found.correct)
            assert found.class_names == tuple(order.split("-"))
        answered = found.column("prediction") >= 0
        assert answered.sum() > 4
        assert (right[0] != right[1])[answered].all(), "of two classes, one order has right what the other has not"

    def test_what_differs_is_said(self, home, pictured, tmp_path):
        options = partial(self.options, home, pictured)
        store = attacked(**options("ant-bee", tmp_path / "a", eps="0.5", m=2, steps=2, save_adversaries=True))
        for change, words in (("remove", "image 15 is among those, and here are 15 images"),
                              ("move", "other labels: image 7 is of class ant there and of class bee here"),
                              ("redraw", "their labels are the same, but not their SHA-256")):
            other = tmp_path / change
            shutil.copytree(pictured, other)
            if change == "remove":
                (other / "ant" / "00.png").unlink()
            elif change == "move":
                (other / "ant" / "14.png").rename(other / "bee" / "00.png")
            else:
                shutil.copy(other / "ant" / "02.png", other / "ant" / "00.png")
            asked = {**options("ant-bee", tmp_path / "p", adversaries=store.folder), "data": f"imagefolder:{other}"}
            with pytest.raises(InputError, match=f"of other images than those of .*{words}"):
                predict(PredictConfig.parse(asked))

    def test_certificates_of_one_model_have_its_classes_in_one_order(self, home, pictured, tmp_path):
        options = partial(self.options, home, pictured)
        store = certify(CertifyConfig.parse(options("bee-ant", tmp_path / "c", n=200)))
        asked = options("ant-bee", tmp_path / "a", eps_from=store.folder, times="1.5", m=2, steps=2)
        with pytest.raises(StoreError, match="classes in the order bee, ant, and this run in the order ant, bee"):
            attacked(**asked)
        assert attacked(**{**asked, "classes": home / "bee-ant.txt"}).complete


class TestAdversaries:
    def test_the_saved_images_are_what_was_predicted(self, home, grid):
        data = load_data("digits")
        for m in (0, 4):
            index, images = read_adversaries(grid.folder, eps=1.0, m=m)
            rows = np.flatnonzero((grid.column("eps") == 1) & (grid.column("m") == m))
            assert index.tolist() == grid.column("index")[rows].tolist()
            assert images.dtype == np.float32
            assert images.min() >= 0
            assert images.max() <= 1
            delta = images.astype(np.float64) - data.batch(index)
            np.testing.assert_allclose(np.sqrt((delta**2).sum((1, 2, 3))), grid.column("l2")[rows], rtol=1e-12)
            assert np.array_equal(np.abs(delta).max((1, 2, 3)), grid.column("linf")[rows])
        assert len(list((grid.folder / "adversaries").iterdir())) == 6 * -(-20 // PART)

    def test_predict_answers_about_them_as_the_attack_did(self, home, grid, tmp_path):
        """At the attack's own seed the votes are its own; the larger n goes on from them. Workers change nothing."""
        asked = {"model": f"{home}/nets.py:Means", "engine": "plain", "seed": 1, "adversaries": grid.folder,
                 "setting": {"eps": 1.0, "m": 4}, "out": tmp_path / "p", "n": "20,60,200"}
        store = predict(PredictConfig.parse(asked))
        rows = np.flatnonzero((grid.column("eps") == 1) & (grid.column("m") == 4))
        assert store.column("index").tolist() == grid.column("index")[rows].tolist()
        assert store.identity.noise.sigma == SIGMA
        assert store.identity.adversaries == {"attack": "pgd", "eps": 1.0, "m": 4, "steps": 3}
        theirs = grid.histories(0, grid.num_records)
        for row, history in zip(rows, store.histories(0, store.num_records), strict=True):
            for mine, own in zip(history[:2], theirs[row], strict=True):
                assert np.array_equal(mine.counts, own.counts)
        told = Predicted.of(store)
        assert [look.n for look in told.looks] == [20, 60, 200]
        for look in told.earlier:
            outcome = next(o for o in outcomes(grid) if (o.size, o.m, o.n) == (1, 4, look.n))
            assert (look.correct.mean(), look.abstained.mean()) == (outcome.accuracy, outcome.abstained)
        few = predict(PredictConfig.parse({**asked, "out": tmp_path / "f", "max_images": 5}))
        assert few.column("index").tolist() == take_evenly(store.column("index"), 5).tolist()
        with_workers = predict(PredictConfig.parse({**asked, "out": tmp_path / "w", "workers": 2}))
        assert files(with_workers.folder) == files(store.folder)
        verified = verify(VerifyConfig.parse({"store": tmp_path / "p", "resample": 3, "model": asked["model"],
                                                "adversaries": grid.folder}))
        assert not [problem for check in verified.checks for problem in check.problems]

    @pytest.mark.parametrize(("change", "words"), [
        ({"setting": {"eps": 0.7}}, "0 settings"), ({"setting": {}}, "6 settings"),
        ({"split": "train"}, "other images"),
        ({"indices": [1]}, "none of the images selected was attacked"),
        ({"setting": {"epsilon": 1}}, "setting takes eps, times, m, steps"),
        ({"adversaries": None, "setting": {"eps": 1}}, "give adversaries"),
    ])
    def test_predict_says_which_adversaries_it_misses(self, home, grid, tmp_path, change, words):
        given = {"model": f"{home}/nets.py:Means", "seed": 1, "adversaries": grid.folder,
                 "setting": {"eps": 1.0, "m": 4}, "out": tmp_path / "p", **change}
        with pytest.raises((InputError, ConfigError, StoreError), match=words):
            predict(PredictConfig.parse(given))
        assert not (tmp_path / "p").exists()

    def test_what_is_missing_or_changed_is_named(self, home, grid, tmp_path):
        with pytest.raises(InputError, match=r"6 settings; the store has eps 0\.5, m 0, steps 3"):
            read_adversaries(grid.folder)
        with pytest.raises(InputError, match="0 settings"):
            read_adversaries(grid.folder, eps=0.7)
        store = attacked(**digits(home, tmp_path / "s", eps="1", max_images=2, save_adversaries=True))
        (file,) = (store.folder / "adversaries").iterdir()
        file.write_bytes(b"x" + file.read_bytes())
        with pytest.raises(StoreError, match="changed"):
            read_adversaries(store.folder)
        file.unlink()
        with pytest.raises(StoreError, match="is missing"):
            attacked(**digits(home, tmp_path / "s", eps="1", max_images=2, save_adversaries=True))
        with pytest.raises(SmoothcertError, match="save-adversaries"):
            read_adversaries(tmp_path)


@pytest.mark.parametrize(("options", "words"), [
    ({}, "either eps"), ({"eps": "1", "eps_from": "c"}, "either eps"), ({"eps": "0,1"}, "eps: .*above 0"),
    ({"eps": "-1"}, "above 0"), ({"eps": "nan"}, "above 0"), ({"eps": "1,0.5"}, "ascending"), ({"eps": ""}, "nothing"),
    ({"eps": "1", "m": "-1"}, "m.0"), ({"eps": "1", "m": "1,x"}, "m.1"), ({"eps": "1", "steps": 0}, "steps"),
    ({"eps": "1", "n": "0"}, "n: "), ({"eps": "1", "n": "100,50"}, "n: .*ascending"),
    ({"eps": "1", "only_right": True}, "only-right chooses"),
    ({"eps": "1", "attack": "deepfool"}, "give m 0"), ({"eps": "1", "attack": "deepfool", "m": "0,8"}, "give m 0"),
    ({"eps": "1", "times": "1"}, "times are multiples"), ({"eps_from": "c", "times": "0"}, "times"),
    ({"eps_from": "c", "certified": "c"}, "leave certified out"), ({"eps_from": "c", "target": 1}, "leave target out"),
    ({"eps_from": "c", "attack_option": ["norm=linf"]}, "l2"), ({"eps": "1", "attack": "pdg"}, 'did you mean "pgd"'),
    ({"eps": "1", "attack_option": ["gamma=0.1"]}, "'pgd' has no option 'gamma'"),
    ({"eps": "1", "attack": "ddn", "attack_option": ["gamma=2"]}, "gamma must"),
    ({"eps": "1", "attack_option": ["gamma=1", "gamma=2"]}, "give each KEY once, got gamma"),
    ({"eps": "1", "attack_option": ["steps=2"]}, "give --steps"), ({"eps": "1", "attack_option": ["x"]}, "KEY=VALUE"),
    ({"eps": "1", "attack": "stein", "m": "0,8"}, "stein"), ({"eps": "1", "target": -1}, "target"),
    ({"eps": "1", "epz": "2"}, "epz: unknown option"), ({"eps": "1", "n_max": 9}, "n_max: unknown option"),
])
def test_mistakes_in_the_options_are_told_before_any_work(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        AttackConfig.parse({"model": "m", "out": tmp_path / "s", **options})


def test_one_number_is_a_list_of_one(tmp_path):
    config = AttackConfig.parse({"model": "m", "out": tmp_path, "eps": 0.5, "m": 0, "n": 100, "steps": [1, 2]})
    assert (config.eps, config.m, config.n, config.steps) == ((0.5,), (0,), (100,), (1, 2))


@pytest.mark.parametrize(("options", "kind", "words"), [
    ({"model": "Outside", "model_id": "o"}, ModelError, "take the attack stein"),
    ({"model": "Outside", "attack": "ddn"}, ModelError, "take the attack stein"),
    ({"target": 10}, InputError, "0 to 9, got 10"), ({"target": 4, "indices": "0"}, InputError, "no image is left"),
    ({"eps_from": "nowhere", "eps": None}, SmoothcertError, "no store nowhere"),
    ({"certified": "nowhere"}, SmoothcertError, "no store nowhere"),
])
def test_what_cannot_be_attacked_is_told_before_any_work(home, tmp_path, options, kind, words):
    given = {**digits(home, tmp_path / "s", eps="1"), **options}
    if "model" in options:
        given["model"] = f"{home}/nets.py:{options['model']}"
    if "indices" in options:
        assert load_data("digits").labels[0] == options["target"]
        del given["max_images"]
    with pytest.raises(kind, match=words):
        attacked(**{name: value for name, value in given.items() if value is not None})
    assert not (tmp_path / "s").exists()


def test_a_model_without_gradients_is_attacked_by_stein(home, tmp_path):
    store = attacked(**{**digits(home, tmp_path / "s", eps="2", attack="stein", m=64, steps=8, max_images=8),
                        "model": f"{home}/nets.py:Outside", "model_id": "o"})
    assert store.complete
    assert outcomes(store)[1].accuracy < outcomes(store)[0].accuracy


class TestReport:
    """On a store made by hand: 4 images, one setting, n 100."""

    LABELS = (0, 0, 1, 1)

    def record(self, index: int, prediction: int, eps: float, l2: float = 0.0) -> Record:
        counts = np.array([50, 50]) if prediction < 0 else np.where(np.arange(2) == prediction, 100, 0)
        values = {"eps": eps, "times": None, "m": 4 if eps else 0, "steps": 2 if eps else 0,
                  "attacked": self.LABELS[index], "l2": l2, "linf": l2, "p_value": 1.0}
        return Record(index, self.LABELS[index], prediction, values, False, [Tally.of("predict", counts)])

    @pytest.fixture
    def make(self, grid, tmp_path):
        def build(clean, moved, name="a") -> Store:
            identity = {**grid.identity.raw, "images": {"count": 4, "start": 0, "every": 1}, "num_classes": 2,
                        "procedure": FixedPredict(100, 0.001).identity(), "records_per_image": 2}
            records = [record for i in range(4) for record in (self.record(i, clean[i], 0.0),
                                                               self.record(i, moved[i], 0.5, 0.49))]
            write_store(tmp_path / name, identity, {}, records)
            return read_store(tmp_path / name)
        return build

    @pytest.fixture
    def certify_like(self, grid, tmp_path):
        def build(prediction, radius, name="c", **change) -> Store:
            kept = {name: grid.identity.raw[name] for name in ("model", "data", "noise")}
            identity = {**kept, "kind": "certify", "num_classes": 2, "images": {"count": 4, "start": 0, "every": 1},
                        "procedure": {"alpha": 0.001, "method": "cohen", "n0": 100, "n": 100, "margin": None}, **change}
            write_store(tmp_path / name, identity, {}, [
                Record(i, self.LABELS[i], prediction[i], {"radius": radius[i]}, False, []) for i in range(4)])
            return read_store(tmp_path / name)
        return build

    def test_an_abstention_is_wrong_but_no_change(self, make):
        clean, moved = outcomes(make((0, 1, 1, -1), (1, 1, -1, 0)))
        assert (clean.accuracy, clean.abstained, clean.changed, clean.l2) == (0.5, 0.25, 0, 0)
        assert (moved.accuracy, moved.abstained, moved.l2) == (0, 0.25, 0.49)
        assert moved.changed == 0.25, "image 0 alone: 1 stays, 2 abstains now, 3 abstained before"
        assert (moved.size, moved.m, moved.steps, moved.n, moved.images) == (0.5, 4, 2, 100, 4)

    def test_beside_the_certified_curve(self, make, certify_like):
        store = make((0, 0, 1, 1), (0, 1, -1, 1))
        c = certify_like((0, 0, 1, 0), (0.6, 0.5, 0.7, 0.9))
        clean, moved = beside(store, c)
        assert (clean.certified, clean.empirical) == (0.75, 1)
        assert (moved.certified, moved.empirical) == (0.75, 0.5)
        assert (moved.lost_answers, moved.lost_abstentions) == (0.25, 0.25)
        (_, later) = beside(store, certify_like((0, 0, 1, 0), (0.6, 0.49, 0.7, 0.9), "d"))
        assert later.certified == 0.5
        assert "WARNING: empirical below certified at eps 0.5" in store_text(store, c)
        quiet = make((0, 0, 1, 1), (0, 0, -1, 1), "b")
        assert "by abstentions alone" in store_text(quiet, certify_like((0, 0, 1, 1), (1.0,) * 4, "e"))
        assert under_attack(store, c).to_json()["rows"][1]["lost_answers"] == 0.25

    def test_violations_are_counted_inside_the_radius_only(self, make, certify_like):
        store = make((0, 0, 1, 1), (1, 1, 0, -1))
        found = violations(store, certify_like((0, 0, 1, 1), (0.6, 0.3, 0.7, 0.9)))
        assert (found.pairs, found.changed, found.images, found.images_changed) == (3, 2, 3, 2)
        assert found.expected == pytest.approx(4 * 0.001 + 3 * 0.001)
        assert found.chance == pytest.approx(1 - 0.998**4 - 4 * 0.002 * 0.998**3, rel=1e-6)
        assert "something is wrong" in store_text(store, certify_like((0, 0, 1, 1), (0.6, 0.3, 0.7, 0.9)))
        wrong_class = violations(store, certify_like((1, 1, 0, -1), (0.6, 0.6, 0.7, 0.0), "d"))
        assert (wrong_class.pairs, wrong_class.changed) == (3, 0)

    def test_certificates_of_other_things_are_refused(self, make, certify_like, grid):
        store = make((0, 0, 1, 1), (0, 1, -1, 1))
        other = certify_like((0, 0, 1, 1), (1.0,) * 4, noise={**grid.identity.noise.raw, "sigma": 1.0})
        for report in (beside, violations):
            with pytest.raises(StoreError, match=r"noise\.sigma"):
                report(store, other)
            with pytest.raises(StoreError, match="kind attack"):
                report(store, store)

    def test_the_curve_takes_the_largest_unless_told(self, grid):
        curve = empirical_curve(grid)
        assert curve.size.tolist() == [0, 0.5, 1]
        assert (curve.m, curve.steps, curve.n, curve.axis) == (4, 3, 60, "eps")
        weak = empirical_curve(grid, m=0, n=20)
        assert weak.accuracy[0] == outcomes(grid)[0].accuracy
        assert np.all(np.diff(curve.accuracy) <= 0)
        with pytest.raises(InputError, match="m = 3 is none of the store's: 0, 1, 4"):
            empirical_curve(grid, m=3)

    def test_under_l_inf_the_l2_radius_must_reach_the_corners(self, make, certify_like):
        store = make((0, 0, 1, 1), (0, 0, 1, 1))
        store = replace(store, identity=store.identity.replace(
            attack={**store.identity.attack.raw, "options": {"norm": "linf"}}))
        far = 0.5 * 8  # sqrt(64) pixels
        assert beside(store, certify_like((0, 0, 1, 1), (far, far - 0.01, far, 1.0)))[1].certified == 0.5

    def test_an_attack_store_where_another_kind_is_needed(self, grid, certified):
        with pytest.raises(StoreError, match="kind attack"):
            Result.of(grid)
        with pytest.raises(StoreError, match="kind attack"):
            recertify(grid)
        with pytest.raises(StoreError, match="one of kind attack was expected"):
            outcomes(certified)

    def test_info_and_an_unfinished_store(self, home, grid, tmp_path):
        facts = Description.of(grid.folder).to_json()
        assert facts["is"] == "attack store"
        assert facts["records"] == "140 of 140"
        (found,) = [one for one in facts["outcomes"]
                    if [one[name] for name in ("size", "m", "steps", "n")] == [1, 4, 3, 60]]
        assert found["accuracy"] == empirical_curve(grid).accuracy[-1]

        class Stopped(BaseException):
            pass

        def progress(event):
            if event.done == 25:
                raise Stopped

        with pytest.raises(Stopped):
            attack(AttackConfig.parse(digits(home, tmp_path / "s", eps="1")), progress)
        store = read_store(tmp_path / "s")
        assert [o.images for o in outcomes(store)] == [16, 9]
        assert "UNFINISHED" in store_text(store)
        assert Description.of(store.folder).to_json()["records"] == "25 of 40"


def test_the_command_line(home, certified, tmp_path):
    command = ["attack", f"{home}/nets.py:Means", "--data", "digits", "--sigma", "0.25", "--eps", "0.5,1", "--m", "0,2",
               "--steps", "2", "--n", "30,60", "--max-images", "6", "--seed", "0", "--engine", "plain", "--quiet",
               "--certified", str(certified.folder), "-o", str(tmp_path / "s")]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "empirical" in shown.output
    told = json.loads(CliRunner().invoke(app, [*command, "--json"]).output)
    assert [(o["size"], o["m"], o["n"]) for o in told["outcomes"][:4]] == [(0, 0, 30), (0, 0, 60), (0.5, 0, 30),
                                                                           (0.5, 0, 60)]
    assert len(told["outcomes"]) == 10
    assert told["certified"]["violations"]["changed"] == 0
