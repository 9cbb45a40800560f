"""Composed certificates: their level by enumeration, what a routed store holds, and stores that do not go together."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.data import load_data
from smoothcert.errors import FileError, InputError, StoreError
from smoothcert.results.certified import Result
from smoothcert.stats import certify_counts
from smoothcert.store.recertify import recertify
from smoothcert.store.records import Record
from smoothcert.store.routed import label_best, route
from smoothcert.store.store import Store, read_store, write_store
from stores import DIGITS, attacked, identity_of, made


def invoke(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def given(folder: Path, prediction, radius, sigma: float = 0.25, procedure: dict | None = None, **changes) -> Path:
    """A store of the first digits with these answers."""
    records = [Record(i, int(DIGITS.labels[i]), int(c), {"radius": float(r)}, False)
               for i, (c, r) in enumerate(zip(prediction, radius, strict=True))]
    told = {"method": "cohen", "n0": 100, "n": 1000, "margin": None, **(procedure or {})}
    write_store(folder, identity_of("certify", len(records), sigma, told, **changes), {"model": folder.name}, records)
    return folder


@pytest.fixture
def parts(tmp_path) -> tuple[Store, list[Store]]:
    """A router and two classifiers over five digits."""
    y = DIGITS.labels[:5]
    router = given(tmp_path / "router", [0, 1, -1, 7, 1], [0.5, 0.2, 0.0, 0.4, 0.3])
    first = given(tmp_path / "first", y, [0.3, 0.9, 0.9, 0.9, 0.1])
    second = given(tmp_path / "second", [y[0], y[1], y[2], y[3], -1], [0.1, 0.6, 0.6, 0.6, 0.0], sigma=0.5)
    return read_store(router), [read_store(first), read_store(second)]


def test_an_answer_has_the_smaller_radius_of_its_route(parts, tmp_path):
    routed = route(parts[0], parts[1], tmp_path / "routed")
    y = DIGITS.labels[:5]
    assert routed.column("prediction").tolist() == [y[0], y[1], -1, -1, -1]
    assert routed.column("radius").tolist() == [0.3, 0.2, 0.0, 0.0, 0.0]
    identity = routed.identity
    assert identity.procedure.alpha == 0.002
    assert identity.routed_from.router == parts[0].identity.digest
    assert identity.routed_from.classifiers == [one.identity.digest for one in parts[1]]
    assert Result.of(routed).level == 0.002
    assert "1 to first (sigma 0.25), 2 to second (sigma 0.5), 2 to none" in routed.provenance.notes[-1]


def test_t_certify_counts_at_its_proved_level(parts, tmp_path):
    y = DIGITS.labels[:5]
    other = read_store(given(tmp_path / "t", y, [0.5] * 5, procedure={"method": "t-certify"}))
    assert route(parts[0], [parts[1][0], other], tmp_path / "routed").identity.procedure.alpha == pytest.approx(0.003)


def test_the_level_is_the_sum_whatever_the_noise_shares():
    """All votes of a router and of two classifiers are summed over, independent and as dependent as can be."""
    n, alpha = 25, 0.1
    counts = np.stack([np.arange(n + 1), n - np.arange(n + 1)], axis=1)
    radius = certify_counts(np.tile([1, 0], (n + 1, 1)), counts, 1.0, alpha, "cohen").radius
    worst = 0.0
    for p0, p1 in product(special.ndtr(np.append(radius[radius > 0], 0.0) * (1 - 1e-9)), repeat=2):
        truth = min(special.ndtri(p0), special.ndtri(p1))
        fails = np.minimum.outer(radius, radius) > truth
        law0, law1 = (stats.binom.pmf(np.arange(n + 1), n, p) for p in (p0, p1))
        alone = [float(law[radius > special.ndtri(p)].sum()) for law, p in ((law0, p0), (law1, p1))]
        assert law0 @ fails @ law1 <= sum(alone) + 1e-12
        worst = max(worst, sum(alone))  # the two failures never together
    assert 1.2 * alpha < worst <= 2 * alpha


def test_a_routed_store_goes_where_runs_go(parts, tmp_path):
    routed = route(parts[0], parts[1], tmp_path / "routed").folder
    assert "routed" in invoke("table", routed, parts[1][0].folder, "--radii", "0.1,0.25")
    assert "oracle envelope" in invoke("table", routed, parts[1][0].folder, "--radii", 0.1, "--envelope")
    invoke("compare", routed, parts[1][0].folder, "--radii", 0.1)
    invoke("plot", "curve", routed, "-o", tmp_path / "curve.png")
    invoke("report", routed, "--no-gallery", "-o", tmp_path / "page.html")
    invoke("verify", routed)
    invoke("info", routed)
    with pytest.raises(StoreError, match="route again"):
        recertify(read_store(routed), alpha=0.01)
    assert "no votes" in invoke("table", routed, "--one-pass", code=1)
    assert "composed of other runs" in invoke("export", routed, "-o", tmp_path / "counts.npz", code=1)
    asked = ("--require", "accuracy@0.1 >= 0", "--require", "one_pass@0.1 >= 0.1")
    decisions = json.loads(invoke("check", routed, *asked, "--json", code=1))["decisions"]
    assert [one["outcome"] for one in decisions] == ["holds", "undecided"]


def test_the_verb_names_each_class_once(parts, tmp_path):
    first, second = (one.folder for one in parts[1])
    told = json.loads(invoke("route", parts[0].folder, f"1={second}", f"0={first}", "-o", tmp_path / "a", "--json"))
    assert told["images"] == 5
    for wrong in ([f"0={first}", f"0={second}"], [f"1={first}", f"2={second}"], [first, second]):
        assert "0=STORE 1=STORE" in invoke("route", parts[0].folder, *wrong, "-o", tmp_path / "b", code=2)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(("changes", "words"), [
    ({"procedure": {"design": "radii", "radii": [0.5], "n_max": 1000}}, "design (fixed and radii|radii and fixed)"),
    ({"data": {"name": "mnist", "split": "test", "shape": [1, 8, 8], "sha256": "00"}}, "name mnist and digits"),
    ({"norm": "linf"}, "linf radii"),
])
def test_stores_that_do_not_go_together_are_refused(parts, tmp_path, changes, words):
    y = DIGITS.labels[:5]
    other = read_store(given(tmp_path / "other", y, [0.5] * 5, **changes))
    with pytest.raises(StoreError, match=words):
        route(parts[0], [parts[1][0], other], tmp_path / "routed")
    assert not (tmp_path / "routed").exists()


def test_other_images_kinds_and_numbers_are_refused(parts, tmp_path):
    router, (first, second) = parts
    with pytest.raises(StoreError, match="other indices"):
        route(router, [first, read_store(made(tmp_path / "more", count=9))], tmp_path / "routed")
    with pytest.raises(StoreError, match="kind attack"):
        route(router, [first, read_store(attacked(tmp_path / "attacked"))], tmp_path / "routed")
    with pytest.raises(InputError, match="two classifiers or more"):
        label_best([first], tmp_path / "best.json")
    with pytest.raises(InputError, match="two classifiers or more"):
        route(router, [first], tmp_path / "routed")
    with pytest.raises(InputError, match="10 classes"):
        route(router, [first] * 11, tmp_path / "routed")
    routed = route(router, [first, second], tmp_path / "routed")
    with pytest.raises(StoreError, match="composed of other stores"):
        route(router, [first, routed], tmp_path / "again")


def test_radii_stay_decided_where_all_decided_them(tmp_path):
    y, design = DIGITS.labels[:3], {"design": "radii", "radii": [0.25], "n": None, "n_max": 1000}
    stores = [read_store(given(tmp_path / name, c, [0.5] * 3, procedure=design))
              for name, c in (("r", [0, 1, 1]), ("a", y), ("b", y))]
    result = Result.of(route(stores[0], stores[1:], tmp_path / "routed"))
    assert result.decided == (0.25,)
    assert result.at([0.25], 0.05).claimed.tolist() == [3]


class TestLabels:
    def test_each_image_gets_the_furthest_classifier(self, parts, tmp_path):
        assert label_best(parts[1], tmp_path / "best.json") == [5, 0]
        y = DIGITS.labels[:5]
        third = read_store(given(tmp_path / "third", [y[0], y[1], y[2], 9 - y[3], -1], [1.0, 0.9, 1.0, 2.0, 0.0]))
        assert label_best([parts[1][0], third], tmp_path / "best.json") == [3, 2]
        told = json.loads((tmp_path / "best.json").read_text())
        assert (told["data"], told["split"], told["labels"]) == ("digits", "test", [1, 0, 1, 0, 0])

    def test_they_are_data(self, parts, tmp_path):
        y = DIGITS.labels[:5]
        third = read_store(given(tmp_path / "third", y, [1.0, 0.0, 1.0, 1.0, 1.0]))
        invoke("label-best", parts[1][1].folder, third.folder, "-o", tmp_path / "best.json")
        data = load_data(f"labels:{tmp_path / 'best.json'}", "test")
        assert data.labels.tolist() == [1, 0, 1, 1, 1]
        assert data.num_classes == 10
        assert np.array_equal(data.batch(range(5)), DIGITS.batch(range(5)))
        with pytest.raises(InputError, match="--data digits"):
            load_data(f"labels:{tmp_path / 'best.json'}", "train")

    def test_images_that_none_certifies_are_left_out(self, tmp_path):
        y = DIGITS.labels[:3]
        stores = [read_store(given(tmp_path / name, c, r)) for name, c, r in (
            ("a", [y[0], 9 - y[1], -1], [0.5, 0.5, 0.0]), ("b", [-1, -1, -1], [0.0] * 3))]
        label_best(stores, tmp_path / "best.json")
        assert len(load_data(f"labels:{tmp_path / 'best.json'}", "test")) == 1
        with pytest.raises(InputError, match="nothing to learn"):
            label_best([stores[1], read_store(given(tmp_path / "c", [-1] * 3, [0.0] * 3))], tmp_path / "none.json")
        with pytest.raises(InputError, match="given twice"):
            label_best([stores[0], stores[0]], tmp_path / "none.json")
        assert not (tmp_path / "none.json").exists()

    def test_code_that_the_file_names_is_not_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "own.py").write_text(
            "from pathlib import Path\n\nfrom smoothcert.data import load_data\n\nPath('ran').touch()\n\n\n"
            "def digits(split):\n    data = load_data('digits', split)\n"
            "    return data.batch(range(5)), data.labels[:5]\n")
        content = {"version": 1, "data": "own.py:digits", "split": "test", "classifiers": ["a", "b"],
                   "indices": [0, 2], "labels": [1, 0]}
        (tmp_path / "best.json").write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"come from code, own\.py:digits"):
            load_data("labels:best.json", "test")
        assert not (tmp_path / "ran").exists()
        load_data(f"{tmp_path / 'own.py'}:digits", "test")
        assert load_data("labels:best.json", "test").labels.tolist() == [1, 0]
        (tmp_path / "best.json").write_text(json.dumps({**content, "data": "labels:best.json"}))
        with pytest.raises(FileError, match="labels themselves"):
            load_data("labels:best.json", "test")

    @pytest.mark.parametrize("content", ["{}", "[]", '{"version": 1, "data": 3}', "no json"])
    def test_other_files_are_refused(self, tmp_path, content):
        (tmp_path / "best.json").write_text(content)
        with pytest.raises(FileError):
            load_data(f"labels:{tmp_path / 'best.json'}", "test")
