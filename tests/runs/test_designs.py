"""Designs of runs: stores go on in the version that they were begun with, and curves up to a radius."""

import json
from pathlib import Path

import pytest
import torch

from printed import store_text
from smoothcert import SmoothedClassifier
from smoothcert.errors import ConfigError, InputError
from smoothcert.interop.opening import open_records, write_records
from smoothcert.noise import build_noise
from smoothcert.results.certified import Result
from smoothcert.runs.certify import certify, predict, usual_samples
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.stats.plans import PLANS
from smoothcert.store.recertify import recertify
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

NETS = '''
import torch


class Means(torch.nn.Module):
    """Votes for the brighter half of an image."""

    def forward(self, x):
        halves = torch.stack([x[..., :4, :].mean((1, 2, 3)), x[..., 4:, :].mean((1, 2, 3))], dim=1)
        return torch.nn.functional.pad(halves, (0, 8), value=-9.0)


def build():
    return Means().eval()
'''
RADII = {"n_max": 2000, "radii": "0.05,0.1"}
CURVE = {"n_max": 1500, "n0": 100, "curve_loss": 0.05}


class Stopped(BaseException):
    """Ends a run half-way."""


def stop(event):
    if event.done == 3 and event.phase == "sampling":
        raise Stopped


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("net")
    (folder / "nets.py").write_text(NETS)
    return f"{folder}/nets.py:build"


def options(net: str, out: Path, **more):
    return {"model": net, "data": "digits", "sigma": 0.25, "seed": 0, "max_images": 6, "out": out, **more}


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def test_an_engine_is_weighed_against_about_the_samples_that_images_take(net):
    """A list of radii is decided with a good part of its samples, where one radius at a large n_max takes few."""
    def usual(**options):
        return usual_samples(CertifyConfig.parse({"model": net, "sigma": 0.5, "out": "s", **options}).plan(
            build_noise("gaussian", 0.5), None))

    assert usual(n=1000, n0=100) == 1100
    assert 3000 <= usual(n_max=10_000, radii="0,0.25,0.5,0.75") <= 5500
    assert 1400 <= usual(n_max=100_000, radii="0.5") <= 4000
    assert usual(n_max=500, radii="0,0.25,0.5") <= 1000
    assert usual(n_max=100_000, curve_loss=0.05) < 20_000


@pytest.mark.parametrize(("run", "kind", "design", "more"), [
    (certify, CertifyConfig, "curve", CURVE), (certify, CertifyConfig, "curve", {**CURVE, "method": "cohen"}),
    (certify, CertifyConfig, "radii", RADII), (certify, CertifyConfig, "radii", {**RADII, "method": "cohen"}),
    (predict, PredictConfig, "sequential", {"n_max": 1000}),
])
def test_old_stores_go_on_in_their_own_design(net, tmp_path, monkeypatch, run, kind, design, more):
    """The same command goes on with a store of the first version, to the bytes that it would have written."""
    whole, half, new = (kind.parse(options(net, tmp_path / name, **more)) for name in ("whole", "half", "new"))
    with monkeypatch.context() as earlier:
        group = PLANS["certify" if run is certify else "predict"]
        earlier.setitem(group, design, group[design][:1])
        before = run(whole)
        with pytest.raises(Stopped):
            run(half, stop)
    assert "version" not in before.identity.raw["procedure"]
    resumed = run(half)
    assert resumed.complete
    assert shards(half.out) == shards(whole.out)
    assert resumed.identity.raw == before.identity.raw
    assert run(new).identity.raw["procedure"]["version"] == 2
    found = verify(VerifyConfig.parse({"store": half.out, "resample": 6, "model": net}))
    assert [list(check.problems) for check in found.checks if check.problems] == []
    if run is certify:
        answers, procedure = recertify(resumed, alpha=0.001)
        assert answers.radius.tolist() == resumed.column("radius").tolist()
        assert "version" not in procedure


class TestClasses:
    """Ways to the class that is judged at fixed radii: the leading one, which takes no samples, or the label."""

    def test_the_leading_class_is_followed(self, net, tmp_path):
        given = options(net, tmp_path / "s", **{**RADII, "radii": "0.1", "method": "cohen"})
        store = certify(CertifyConfig.parse(given))
        chosen = certify(CertifyConfig.parse({**given, "out": tmp_path / "c", "n0": 100}))
        assert (store.identity.procedure.n0, chosen.identity.procedure.n0) == (0, 100)
        assert {look.stage for history in store.histories() for look in history} == {"estimate"}
        assert store.column("prediction").tolist() == chosen.column("prediction").tolist()
        found = verify(VerifyConfig.parse({"store": tmp_path / "s", "resample": 6, "model": net}))
        assert [list(check.problems) for check in found.checks if check.problems] == []
        with pytest.raises(InputError, match="follows the leading class"):
            recertify(store, method="two-sided")

    @pytest.mark.parametrize("method", ["cohen", "two-sided"])
    def test_known_labels_are_all_that_is_judged(self, net, tmp_path, method):
        given = options(net, tmp_path / "s", **{**RADII, "method": method, "labels_known": True, "max_images": 40})
        store = certify(CertifyConfig.parse(given))
        label, prediction = store.column("label"), store.column("prediction")
        assert set(prediction[prediction != label]) == {-1}
        assert (prediction == label).any()
        plain = certify(CertifyConfig.parse({**given, "labels_known": False, "out": tmp_path / "p"}))
        right = plain.column("prediction") == label
        assert right.mean() == pytest.approx((prediction == label).mean(), abs=0.1)
        assert "labels were known" in store_text(store)
        found = verify(VerifyConfig.parse({"store": tmp_path / "s", "resample": 6, "model": net}))
        assert [list(check.problems) for check in found.checks if check.problems] == []

    def test_labels_in_python(self):
        def brighter(x):
            return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)

        g, images = SmoothedClassifier(brighter, sigma=0.5, num_classes=2, seed=0), torch.ones(2, 1, 4, 4)
        found = g.certify(images, radii=[0.1], n_max=1000, labels=[0, 1])
        assert [one.prediction for one in found] == [0, None]
        assert found[0].selection.n == 0
        for wrong in ([0], [0, 2], [0.5, 0]):
            with pytest.raises(InputError, match="labels must be one class"):
                g.certify(images, radii=[0.1], n_max=1000, labels=wrong)
        with pytest.raises(InputError, match="give radii and n_max"):
            g.certify(images, n=100, labels=[0, 1])


class TestCurveTo:
    def config(self, net, out, **more):
        return CertifyConfig.parse(options(net, out, **{**CURVE, "n_max": 4000, "curve_to": 0.1, **more}))

    def test_it_takes_fewer_samples_and_says_where_it_ends(self, net, tmp_path):
        capped = certify(self.config(net, tmp_path / "s"))
        whole = certify(self.config(net, tmp_path / "w", curve_to=None))
        assert capped.counts("estimate").sum() < 0.7 * whole.counts("estimate").sum()
        assert capped.identity.procedure.to == 0.1
        result = Result.of(capped)
        assert result.is_lower_bound
        assert [result.is_decided(radius) for radius in (0.05, 0.1, 0.2)] == [True, True, False]
        text = store_text(capped)
        assert "asked for up to radius 0.1; the curve beyond it and the ACR are a lower bound" in text
        assert not Result.of(whole).is_lower_bound
        assert result.in_linf(64).asked_to == pytest.approx(0.1 / 8)

    def test_it_verifies_and_certifies_again(self, net, tmp_path):
        store = certify(self.config(net, tmp_path / "s"))
        assert certify(self.config(net, tmp_path / "s")).identity.raw == store.identity.raw
        found = verify(VerifyConfig.parse({"store": tmp_path / "s", "resample": 6, "model": net}))
        assert [list(check.problems) for check in found.checks if check.problems] == []
        _, procedure = recertify(store)
        assert Result.build(store, None, procedure, store.column("prediction"), store.column("radius")).asked_to == 0.1
        _, stricter = recertify(store, alpha=1e-4)  # n was sized at another alpha
        assert Result.build(store, None, stricter, store.column("prediction"), store.column("radius")).asked_to == 0

    def test_a_log_keeps_it(self, net, tmp_path):
        store = certify(self.config(net, tmp_path / "s"))
        write_records(store, tmp_path / "log.tsv")
        assert Result.of(open_records(tmp_path / "log.tsv")).asked_to == 0.1

    @pytest.mark.parametrize(("more", "words"), [
        ({"curve_loss": None, "radii": "0.1"}, "give curve_loss too"),
        ({"curve_loss": None, "n_max": None, "n": 100}, "give curve_loss too"),
        ({"curve_to": 0}, "curve_to"), ({"curve_to": -1}, "curve_to"), ({"curve_to": "inf"}, "curve_to"),
    ])
    def test_what_is_refused(self, net, tmp_path, more, words):
        with pytest.raises(ConfigError, match=words):
            self.config(net, tmp_path / "s", **more)

    def test_an_old_store_has_none(self, net, tmp_path, monkeypatch):
        with monkeypatch.context() as earlier:
            earlier.setitem(PLANS["certify"], "curve", PLANS["certify"]["curve"][:1])
            certify(self.config(net, tmp_path / "s", curve_to=None))
        with pytest.raises(InputError, match="curve_to is newer than these records"):
            certify(self.config(net, tmp_path / "s"))

    def test_one_image(self):
        g = SmoothedClassifier(lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1), sigma=0.5,
                               num_classes=2, seed=0)
        image = torch.ones(1, 4, 4)
        capped = g.certify(image, curve_loss=0.01, curve_to=0.5, n_max=4000)
        whole = g.certify(image, curve_loss=0.01, n_max=4000)
        assert 0.5 <= capped.radius < whole.radius
        assert capped.estimation.n < whole.estimation.n / 10
        with pytest.raises(InputError, match="give curve_loss too"):
            g.certify(image, curve_to=0.5)
        with pytest.raises(InputError, match="to must be"):
            g.certify(image, curve_loss=0.01, curve_to=-0.5, n_max=4000)

    def test_in_a_file_of_options(self, net, tmp_path):
        (tmp_path / "c.json").write_text(json.dumps({"curve_to": 0.1, "curve_loss": 0.05, "n_max": 4000}))
        told = {**json.loads((tmp_path / "c.json").read_text()), **options(net, tmp_path / "s")}
        assert CertifyConfig.parse(told).plan().to == 0.1
