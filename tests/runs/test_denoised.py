"""Denoisers in runs: trained, bundled with the classifier behind them, put in front of others, random ones keyed."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert import SmoothedClassifier
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.folder import module_hash, read_card, read_network, read_weights
from smoothcert.data import load_data
from smoothcert.denoise import DenoisedClassifier, GaussianDenoiser, WalkJump, build_denoiser, generator_normals
from smoothcert.errors import (
    ConfigError,
    EngineWarning,
    FileError,
    InputError,
    ModelError,
    QualityWarning,
    SmoothcertError,
)
from smoothcert.models import build_model
from smoothcert.noise import STAGES, PhiloxStream, build_noise, walk_position
from smoothcert.report.describe import Description
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.smoothing import Sampling, Segment, open_voter
from smoothcert.smoothing.engines import open_engine
from smoothcert.training import loop
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import split_indices, train

SIGMA = 0.4
SHAPE = (1, 8, 8)


def training(out: Path, **options) -> TrainConfig:
    return TrainConfig.parse({"data": "digits", "epochs": 2, "batch_size": 64, "max_images": 300, "validation": 0.2,
                                "threads": 1, "out": out, **options})


def energy(out: Path, sigma: float, **options) -> TrainConfig:
    usual = {"objective": "deen", "model": "energy-residual", "model_option": {"width": 32, "depth": 1},
             "optimizer": "adam", "lr": 0.01}
    return training(out, sigma=sigma, **{**usual, **options})


def certifying(model: Path | str, out: Path, **options) -> CertifyConfig:
    return CertifyConfig.parse({"model": str(model), "data": "digits", "n0": 20, "n": 100, "max_images": 3,
                                  "seed": 5, "out": out, **options})


def records(store) -> list:
    return store.records.to_pylist()


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Denoisers at two noise levels, a classifier, and one trained behind the first denoiser."""
    folder = tmp_path_factory.mktemp("models")
    train(energy(folder / "denoiser", SIGMA, epochs=10, max_images=800))
    train(energy(folder / "fine", 0.1))
    train(training(folder / "plain", model="linear", objective="clean"))
    train(training(folder / "bundle", model="linear", objective="xhat", denoiser=folder / "denoiser",
                   objective_option={"eps": 0.25, "steps": 1}, epochs=6, max_images=800))
    return folder


class TestTraining:
    def test_a_denoiser_is_validated_by_its_squared_error(self, home):
        card = read_card(home / "denoiser")
        assert (card.kind, card.sigma, card.complete) == ("denoiser", SIGMA, True)
        lines = [json.loads(line) for line in (home / "denoiser" / "metrics.jsonl").read_text().splitlines()]
        assert card.best["validation_error"] == min(line["validation_error"] for line in lines)
        noise = card.best["validation_error_without"]
        assert card.best["validation_error"] < 0.4 * noise
        assert noise == pytest.approx(64 * SIGMA**2, rel=0.1)
        denoiser, _ = read_network(home / "denoiser")
        data = load_data("digits", "train")
        clean = torch.from_numpy(data.batch(split_indices(data, energy(home / "denoiser", SIGMA, max_images=800))[1]))
        noisy = clean + SIGMA * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        error = (denoiser(noisy, SIGMA).detach() - clean).square().flatten(1).sum(dim=1).mean()
        assert float(error) == pytest.approx(card.best["validation_error"], rel=0.1)

    def test_a_denoiser_worse_than_none_warns_whenever_it_is_used(self, home, tmp_path):
        with pytest.warns(QualityWarning, match="worse than none"):
            card = train(energy(tmp_path / "bad", 0.05, epochs=1, lr=1e-6))
        assert card.best["validation_error"] > card.best["validation_error_without"]
        with pytest.warns(QualityWarning, match="bad is worse than none"):
            certify(certifying(home / "plain", tmp_path / "store", denoiser=tmp_path / "bad"))
        with warnings.catch_warnings():
            warnings.simplefilter("error", QualityWarning)
            certify(certifying(home / "plain", tmp_path / "good", denoiser=home / "denoiser"))

    def test_the_best_epoch_is_that_of_the_least_error(self, tmp_path):
        measure = loop.MEASURES["denoiser"]
        assert measure.is_better({"validation_error": 1.0}, {})
        assert measure.is_better({"validation_error": 1.0}, {"validation_error": 1.5})
        assert not measure.is_better({"validation_error": 2.0}, {"validation_error": 1.5})
        assert not loop.MEASURES["classifier"].is_better({"validation_accuracy": 0.4}, {"validation_accuracy": 0.5})

    def test_the_classifier_learns_and_the_denoiser_stays(self, home):
        own, bundled = (read_weights(home / name / "best.safetensors") for name in ("denoiser", "bundle/denoiser"))
        assert own.keys() == bundled.keys()
        assert all(torch.equal(own[name], bundled[name]) for name in own)
        assert not any("denoiser" in name for name in read_weights(home / "bundle" / "best.safetensors"))
        assert not any("denoiser" in name
                       for name in read_weights(home / "bundle" / "checkpoints" / "0006" / "weights.safetensors"))
        assert read_card(home / "bundle").best["validation_accuracy"] > 0.5

    @pytest.mark.parametrize("objective", ["deen", "xhat"])
    def test_a_killed_run_resumes_to_equal_weights(self, tmp_path, monkeypatch, home, objective):
        options = {"deen": {}, "xhat": {"denoiser": home / "denoiser", "objective": "xhat", "model": "linear",
                                        "model_option": {}, "objective_option": {"eps": 0.25, "steps": 1}}}[objective]
        whole = train(energy(tmp_path / "whole", SIGMA, ema=0.9, **options))
        kept = loop.write_epoch

        def killed(folder, card, trainee, figures, better):
            if card.epochs_done == 2:
                raise KeyboardInterrupt
            kept(folder, card, trainee, figures, better)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "write_epoch", killed)
            with pytest.raises(KeyboardInterrupt):
                train(energy(tmp_path / "killed", SIGMA, ema=0.9, **options))
        again = train(energy(tmp_path / "killed", SIGMA, ema=0.9, **options))
        assert again == whole
        a, b = (read_weights(tmp_path / name / "best.safetensors") for name in ("whole", "killed"))
        assert all(torch.equal(a[name], b[name]) for name in a)

    def test_the_stability_term_asks_the_classifier(self, tmp_path, home):
        train(energy(tmp_path / "m", SIGMA, objective="denoise", model="direct", epochs=1,
                     model_option={"network": "mlp", "width": 16}, classifier=str(home / "plain"),
                     objective_option={"stability": 0.5}))
        line = json.loads((tmp_path / "m" / "metrics.jsonl").read_text())
        assert line["loss"] == pytest.approx(line["squared_error"] + 0.5 * line["stability"], rel=1e-5)
        assert read_card(tmp_path / "m").identity["classifier"]["sha256"]

    def test_a_bundle_is_gone_on_from_behind_its_own_denoiser(self, tmp_path, home):
        card = train(training(tmp_path / "m", init=home / "bundle", epochs=1, lr=1e-30, momentum=0, weight_decay=0,
                              schedule="constant"))
        assert (card.sigma, card.denoiser) == (SIGMA, read_card(home / "bundle").denoiser)
        images = torch.rand(4, *SHAPE)
        assert torch.allclose(read_network(tmp_path / "m")[0](images), read_network(home / "bundle")[0](images))

    @pytest.mark.parametrize(("options", "words"), [
        ({"objective": "xhat", "sigma": SIGMA}, "give denoiser"),
        ({"objective": "gaussian", "denoiser": "denoiser", "sigma": 0.3}, "for sigma 0.4, and sigma 0.3"),
        ({"objective": "deen", "denoiser": "denoiser", "sigma": SIGMA}, "none can stand in front"),
        ({"objective": "deen", "model": "direct", "sigma": SIGMA}, "trains an energy"),
        ({"objective": "deen", "model": "mlp", "sigma": SIGMA}, "unknown denoiser 'mlp'"),
        ({"objective": "deen", "sigma": SIGMA, "normalise": "standard"}, "takes and returns images"),
        ({"objective": "gaussian", "denoiser": "plain"}, "is a classifier"),
        ({"objective": "gaussian", "denoiser": "nowhere"}, "there is no model folder"),
        ({"objective": "gaussian", "classifier": "plain", "sigma": SIGMA}, "no option 'classifier'"),
        ({"objective": "denoise", "classifier": "plain", "sigma": SIGMA}, "go together"),
        ({"objective": "denoise", "objective_option": {"classifier": 3}, "sigma": SIGMA}, "--classifier DIR"),
        ({"init": "denoiser", "sigma": SIGMA}, "is a denoiser, but objective gaussian"),
        ({"init": "plain", "objective": "deen", "sigma": SIGMA}, "is a classifier, but objective deen"),
        ({"init": "denoiser", "new_head": True, "objective": "deen", "sigma": SIGMA}, "has no head"),
        ({"init": "bundle", "denoiser": "denoiser"}, "includes it"),
        ({"pseudo_labels": "denoiser", "unlabelled": "digits", "sigma": SIGMA}, "whose answers are images"),
    ])
    def test_bad_requests_leave_nothing_behind(self, tmp_path, home, options, words):
        paths = {name: home / str(options[name]) for name in ("denoiser", "classifier", "init", "pseudo_labels")
                 if name in options}
        with pytest.raises(SmoothcertError, match=words):
            train(training(tmp_path / "m", **{**options, **{k: str(v) for k, v in paths.items()}}))
        assert not (tmp_path / "m").exists()

    def test_an_energy_of_relus_is_warned_of(self, tmp_path):
        with pytest.warns(UserWarning, match="zero curvature"):
            train(energy(tmp_path / "m", SIGMA, epochs=1, max_images=20,
                         model_option={"width": 4, "depth": 1, "activation": "relu"}))


class TestBundles:
    def test_restored_whole_with_one_hash_over_all(self, home):
        bundle, card = read_network(home / "bundle")
        assert isinstance(bundle, DenoisedClassifier)
        assert (bundle.training, bundle.sigma) == (False, SIGMA)
        assert card.denoiser == read_card(home / "denoiser").summary()
        denoiser, _ = read_network(home / "denoiser")
        noisy = torch.randn(5, *SHAPE)
        with torch.no_grad():
            assert torch.equal(bundle(noisy), bundle.classifier(denoiser(noisy, SIGMA)))
        whole = module_hash(bundle)
        for part in (bundle.denoiser, bundle.classifier):
            weight = next(iter(part.parameters()))
            weight.data.view(-1)[0] += 1
            assert module_hash(bundle) != whole
            weight.data.view(-1)[0] -= 1
        first, second = (read_network(home / name)[0] for name in ("denoiser", "fine"))
        walks = [DenoisedClassifier(WalkJump(first, second, SIGMA, 0.1, steps=steps, unroll=unroll), bundle.classifier,
                                    SIGMA) for steps, unroll in ((3, 0), (3, 3), (4, 0))]
        assert module_hash(walks[0]) == module_hash(walks[1]) != module_hash(walks[2])

    def test_certified_as_its_parts_are(self, tmp_path, home):
        """A directory with the bundle's own weights and no denoiser, behind the denoiser by option."""
        card = json.loads((home / "bundle" / "model.json").read_text())
        (tmp_path / "h").mkdir()
        (tmp_path / "h" / "model.json").write_text(json.dumps({**card, "denoiser": None}))
        (tmp_path / "h" / "best.safetensors").write_bytes((home / "bundle" / "best.safetensors").read_bytes())
        whole = certify(certifying(home / "bundle", tmp_path / "a"))
        parts = certify(certifying(tmp_path / "h", tmp_path / "b", denoiser=home / "denoiser"))
        assert whole.identity == parts.identity
        assert whole.identity.noise.sigma == SIGMA
        assert records(whole) == records(parts)
        alone = certify(certifying(tmp_path / "h", tmp_path / "c"))
        assert alone.identity.model != whole.identity.model
        assert records(alone) != records(whole)

    def test_info_says_what_it_is_made_of(self, home):
        facts = Description.of(home / "bundle").to_json()
        assert (facts["kind"], facts["parameters"]) == ("classifier", 650)
        inside, (denoiser, _) = facts["denoiser"], read_network(home / "denoiser")
        assert (inside["model"], inside["sigma"]) == ("energy-residual", SIGMA)
        assert inside["validation_error"] < inside["validation_error_without"]
        assert inside["parameters"] == sum(p.numel() for p in denoiser.parameters())

    @pytest.mark.parametrize(("model", "options", "kind", "words"), [
        ("denoiser", {}, ModelError, "whose answers are images"),
        ("bundle", {"denoiser": "denoiser"}, InputError, "includes it"),
        ("bundle", {"sigma": 0.3}, InputError, "for sigma 0.4, and sigma 0.3"),
        ("plain", {"denoiser": "denoiser", "sigma": 0.3}, InputError, "for sigma 0.4, and sigma 0.3"),
        ("plain", {"denoiser": "plain"}, ModelError, "is a classifier"),
        ("plain", {"denoiser": "."}, FileError, "not a model folder"),
        ("plain", {"walk_jump": "fine", "sigma": SIGMA}, InputError, "give denoiser"),
        ("plain", {"denoiser": "fine", "walk_jump": "denoiser"}, InputError, "must be below sigma"),
        ("plain", {"denoiser": "denoiser", "walk_jump": "fine", "attractor": "fine"}, ConfigError, "give one of them"),
        ("plain", {"denoiser": "denoiser", "front_option": {"steps": 3}}, ConfigError, "goes to walk-jump"),
        ("plain", {"denoiser": "denoiser", "walk_jump": "fine", "front_option": {"stepz": 3}}, InputError, "stepz"),
        ("plain", {"denoiser": "denoiser", "attractor": "fine", "front_option": {"steps": 3}}, InputError, "steps"),
        ("plain", {"denoiser": "denoiser", "walk_jump": "fine", "front_option": {"step": 50.0}}, ModelError,
         "^the walk diverged.*step 50"),
        ("plain", {"denoiser": "denoiser", "data": "digits", "crop": 6}, ModelError, r"shape \(1, 8, 8\)"),
    ])
    def test_refusals_come_before_any_work(self, tmp_path, home, model, options, kind, words):
        options = {k: home / v if k in ("denoiser", "walk_jump", "attractor") else v for k, v in options.items()}
        with pytest.raises(kind, match=words):
            certify(certifying(home / model, tmp_path / "s", **options))
        assert not (tmp_path / "s").exists()

    def test_in_front_of_a_model_that_is_no_network(self, tmp_path, home):
        (tmp_path / "mine.py").write_text(
            "import numpy as np\n"
            "class Model:\n"
            "    def predict_proba(self, x):\n"
            "        return np.stack([x[:, :32].sum(1), x[:, 32:].sum(1)] + [0 * x[:, 0]] * 8, axis=1)\n"
            "model = lambda: Model()\n")
        spec, denoiser = f"{tmp_path / 'mine.py'}:model", home / "denoiser"
        store = certify(certifying(spec, tmp_path / "a", denoiser=denoiser))
        assert set(store.identity.model.raw) == {"by", "sha256", "denoiser", "sources", "answers"}
        other = certify(certifying(spec, tmp_path / "b", sigma=SIGMA))
        assert "denoiser" not in other.identity.model.raw
        assert records(other) != records(store)
        named = certifying(spec, tmp_path / "c", denoiser=denoiser, model_id="halves", engine="eager")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", EngineWarning)
            assert records(certify(named)) == records(store)


class Coin(nn.Module):
    """Votes by two fields of its normals, each summed over the image, and not by the image."""

    random = True

    def forward(self, images: torch.Tensor, normals) -> torch.Tensor:
        return torch.stack([normals(0, images).sum((1, 2, 3)), normals(7, images).sum((1, 2, 3))], dim=1)


class TestRandom:
    def test_every_sample_stage_and_step_has_its_own_normals(self):
        keys = [(stage, step, sample) for stage in STAGES for step in (0, 1, 2**20 - 1) for sample in (0, 1, 2**40 - 1)]
        positions = {walk_position(*key) for key in keys}
        assert len(positions) == len(keys)
        assert all(0 <= position < 2**63 for position in positions)
        for step, sample in ((2**20, 0), (0, 2**40), (-1, 0)):
            with pytest.raises(InputError, match="a walk has at most"):
                walk_position("select", step, sample)

    def test_votes_are_those_of_the_named_streams(self):
        voter = open_voter(Coin(), build_noise("grid", 0.5), 2, SHAPE, seed=3, how=Sampling(batch_size=16)).voter
        counts = voter.count([Segment(voter.subject(np.zeros(SHAPE, np.float32), 9), "estimate", 10, 40)])
        fields = np.empty((2, 40, 64), np.float32)
        for field, step in zip(fields, (0, 7), strict=True):
            PhiloxStream(3, 9, "walk", 64, walk_position("estimate", step, 10)).fill(field)
        first = (fields[0].sum(1) > fields[1].sum(1)).sum()
        assert counts.tolist() == [[first, 40 - first]]

    def test_two_stages_are_independent(self):
        voter = open_voter(Coin(), build_noise("grid", 0.5), 2, SHAPE, seed=3, how=Sampling(batch_size=64)).voter
        subject = voter.subject(np.zeros(SHAPE, np.float32), 9)
        votes = [[int(voter.count([Segment(subject, stage, i, 1)])[0, 0]) for i in range(100)]
                 for stage in ("select", "estimate")]
        assert 30 < sum(a == b for a, b in zip(*votes, strict=True)) < 70

    def test_a_round_of_one_batch_or_many_counts_alike(self):
        denoiser = WalkJump(GaussianDenoiser(0.5, SIGMA), GaussianDenoiser(0.5, 0.05), SIGMA, 0.05, step=0.03, steps=4)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_model("mlp", SHAPE, 10, hidden=(8,)).eval()
        tables = []
        for size in (1, 7, 64):
            g = SmoothedClassifier(DenoisedClassifier(denoiser, network, SIGMA), SIGMA, 10, seed=1)
            x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1))
            tables.append([list(p.counts) for p in g.predict(x, n=90, batch_size=size, index=[4, 2])])
        assert tables[0] == tables[1] == tables[2]
        given = SmoothedClassifier(network, SIGMA, 10, seed=1, denoiser=denoiser)
        assert [list(p.counts) for p in given.predict(x, n=90, index=[4, 2])] == tables[0]
        assert g.soft(x, m=3, index=[4, 2]).shape == (2, 10)

    def test_a_close_call_is_judged_under_its_own_normals(self):
        class Close(nn.Module):
            """Two near-equal logits, whose order the first normal decides."""

            random = True

            def forward(self, images: torch.Tensor, normals) -> torch.Tensor:
                sign = normals(0, images)[:, 0, 0, 0].sign()
                return torch.stack([1 + 1e-6 * sign, torch.ones_like(sign)], dim=1)

        voter = open_voter(Close(), build_noise("grid", 0.5), 2, SHAPE, seed=3, how=Sampling(batch_size=8)).voter
        counts = voter.count([Segment(voter.subject(np.zeros(SHAPE, np.float32), 9), "estimate", 0, 50)])
        normals = np.empty((50, 64), np.float32)
        PhiloxStream(3, 9, "walk", 64, walk_position("estimate", 0, 0)).fill(normals)
        first = int((normals[:, 0] > 0).sum())
        assert counts.tolist() == [[first, 50 - first]]

    @pytest.mark.parametrize("front", ["walk_jump", "attractor"])
    def test_runs_are_equal_whatever_the_batch_and_after_a_resume(self, tmp_path, monkeypatch, home, front):
        options = {"denoiser": home / "denoiser", front: home / "fine", "n": 40,
                   "front_option": {"step": 0.02, **({"steps": 3} if front == "walk_jump" else {"max_steps": 3})}}
        told: list[str] = []
        stores = [certify(certifying(home / "plain", tmp_path / str(size), batch_size=size, **options),
                          lambda event: told.append(event.words)) for size in (7, 64)]
        assert records(stores[0]) == records(stores[1])
        assert stores[0].identity.raw.get("walk_format") == ("philox-v1" if front == "walk_jump" else None)
        cost = "5 denoiser calls" if front == "walk_jump" else "at most 5 denoiser calls"
        assert stores[0].provenance.raw["each_sample"] == cost
        assert cost in told[-1]
        certify(certifying(home / "plain", tmp_path / "plain", sigma=SIGMA))

        def stop(event) -> None:
            if event.phase == "sampling" and event.done == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            certify(certifying(home / "plain", tmp_path / "resumed", **options), stop)
        assert records(certify(certifying(home / "plain", tmp_path / "resumed", **options))) == records(stores[0])

    @pytest.mark.slow
    def test_workers_count_alike(self, tmp_path, home):
        options = {"walk_jump": home / "fine", "front_option": {"steps": 2}, "n": 20}
        stores = [certify(certifying(home / "bundle", tmp_path / str(workers), workers=workers, **options))
                  for workers in (1, 2)]
        assert sorted(records(stores[0]), key=str) == sorted(records(stores[1]), key=str)


class TestEngines:
    def test_an_energy_runs_in_eager_even_in_inference_mode(self, home):
        bundle, _ = read_network(home / "bundle")
        engine = open_engine("eager", bundle, shape=SHAPE, batch=16, device=torch.device("cpu"))
        assert engine.name == "eager"
        rows = torch.randn(16, *SHAPE)
        expected = bundle(rows).detach()
        with torch.inference_mode():
            inside = engine.run(rows + 0)
        assert torch.allclose(inside, expected, atol=1e-5)
        assert not engine.run(rows).requires_grad

    def test_a_random_one_runs_as_it_is(self):
        model = DenoisedClassifier(WalkJump(GaussianDenoiser(0.5, SIGMA), GaussianDenoiser(0.5, 0.05), SIGMA, 0.05),
                                   nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), SIGMA)
        how = {"shape": SHAPE, "batch": 16, "device": torch.device("cpu")}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert open_engine("auto", model, samples=10**6, **how).name == "plain"
        with pytest.warns(EngineWarning, match="the model is random"):
            assert open_engine("eager", model, **how).name == "plain"

    @pytest.mark.slow
    def test_an_export_that_fails_is_named(self, home):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        bundle, _ = read_network(home / "bundle")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            engine = open_engine("onnxruntime", bundle, shape=SHAPE, batch=16, device=torch.device("cpu"))
        assert engine.name == "onnxruntime" or any("'onnxruntime' is not used" in str(w.message) for w in said)

    def test_opening_tells_a_random_model_apart_by_its_settings(self, home):
        front = {"denoiser": home / "denoiser", "walk_jump": home / "fine"}
        hashes = {open_classifier(str(home / "plain"), SHAPE, 10, sigma=SIGMA, front=certifying(
            home / "plain", home / "none", **front, front_option={"steps": steps})).identity["sha256"]
            for steps in (1, 2)}
        assert len(hashes) == 2


def test_conditioned_denoisers_serve_the_sigma_of_the_run(tmp_path):
    train(energy(tmp_path / "d", SIGMA, epochs=1, max_images=50, objective_option={"sigmas": [0.2, 0.4]},
                 model_option={"width": 8, "depth": 1, "conditioned": True}))
    train(training(tmp_path / "h", model="linear", objective="clean", epochs=1))
    stores = [certify(certifying(tmp_path / "h", tmp_path / str(sigma), denoiser=tmp_path / "d", sigma=sigma))
              for sigma in (0.2, 0.3)]
    assert [store.identity.noise.sigma for store in stores] == [0.2, 0.3]
    with pytest.raises(InputError, match="noise level is required"):
        certify(certifying(tmp_path / "h", tmp_path / "s", denoiser=tmp_path / "d"))
    with pytest.raises(InputError, match="noise level is required"):
        train(training(tmp_path / "m", model="linear", denoiser=tmp_path / "d"))


def test_normals_of_a_generator_do_for_a_single_call():
    first, second = build_denoiser("direct", SHAPE, SIGMA, network="mlp", width=4), GaussianDenoiser(0.5, 0.1)
    model = DenoisedClassifier(WalkJump(first, second, SIGMA, 0.1, steps=2), nn.Flatten(), SIGMA)
    y = torch.rand(2, *SHAPE)
    with torch.no_grad():
        a, b = (model(y, generator_normals(torch.Generator().manual_seed(s))) for s in (0, 0))
    assert torch.equal(a, b)
