"""Pictures: what is drawn is what was computed, thinning hides nothing to be seen, files are the same each time."""

import warnings
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import norm
from typer.testing import CliRunner

from smoothcert.cli.main import app
from smoothcert.errors import ConfigError, InputError, SmoothcertError, StoreError, UnknownNameError
from smoothcert.noise import build_noise, open_stream
from smoothcert.report.html import report_page
from smoothcert.report.plots import picture
from smoothcert.report.plots.counts import draw_wall
from smoothcert.report.plots.drawing import open_request
from smoothcert.report.plots.kinds import KINDS
from smoothcert.report.plots.lines import Empirical, Envelopes, Observed, draw_curves, draw_empirical, draw_envelopes
from smoothcert.report.plots.style import COLOURS, DASHES, save
from smoothcert.results.attacks import outcomes
from smoothcert.results.certified import Result
from smoothcert.results.curves import (
    certified_curve,
    curve_of,
    envelope,
    envelopes,
    thin,
    upper_bound,
    value_at,
)
from smoothcert.results.denoising import Estimates
from smoothcert.results.gallery import (
    average_pool,
    decision_regions,
    gallery_of,
    noise_panels,
    noisy_copy,
    resolution_study,
)
from smoothcert.results.gather import gather_page
from smoothcert.results.studies import (
    compare_bounds,
    pairs,
    project_over_alpha,
    project_over_n,
    shares,
    theorems,
    votes_of,
    wall,
)
from smoothcert.runs.reopen import reopen_data
from smoothcert.stats import clopper_pearson, cohen_radius
from smoothcert.store.identity import Identity
from smoothcert.store.records import Record, Tally
from smoothcert.store.store import read_store, write_store
from stores import DIGITS, attacked, made


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return made(folder / "a"), made(folder / "_b", 0.5, 1)


def images_of(store):
    return DIGITS


def gather(kind: str, *stores):
    """What a kind draws of stores."""
    module, _, name = str(KINDS[kind].gather).partition(".")
    request, _ = open_request(KINDS[kind], KINDS[kind].options(stores=tuple(map(str, stores))))
    return getattr(import_module(f"smoothcert.report.plots.{module}"), name)(request)


def lines(figure: Figure) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in figure.axes[0].lines]


def result(radius, correct, name="run", **told) -> Result:
    radius = np.asarray(radius, float)
    return Result(name, np.arange(len(radius)), radius, np.asarray(correct, bool), radius == 0,
                  **{"sigma": 0.5, "alpha": 0.001, "method": "cohen", "n": 1000, **told})


@pytest.mark.parametrize("columns", [1, 7, 100])
def test_a_thinned_curve_has_the_same_value_at_every_pixel(columns):
    rng = np.random.default_rng(columns)
    told = result(rng.gamma(2, 0.3, 3000).round(3), rng.random(3000) < 0.8)
    whole, thinned = certified_curve(told), curve_of(told, columns=columns)
    edges = np.linspace(0, whole.radius[-2], columns + 1)
    for field in ("accuracy", "lower"):
        np.testing.assert_array_equal(value_at(thinned, edges, field), value_at(whole, edges, field))
    for low, high in pairwise(edges):  # what a column of pixels shows: from its first value to its last
        inside = (whole.radius > low) & (whole.radius <= high)
        if inside.any():
            kept = thinned.accuracy[(thinned.radius > low) & (thinned.radius <= high)]
            assert (kept.max(), kept.min()) == (whole.accuracy[inside].max(), whole.accuracy[inside].min())
    assert len(thinned.radius) <= 2 * columns + 2
    assert thinned.radius[-1] == whole.radius[-1]
    assert set(thinned.radius) <= set(whole.radius)


def test_few_corners_are_left_as_they_are():
    steps = np.array([0.1, 0.5, 0.7])
    assert thin(steps, columns=2) is steps


def test_a_picture_draws_the_curves_own_arrays():
    curves = [curve_of(result([0.2, 0.4, 0.9], [True, True, False], name)) for name in ("one", "_two")]
    figure = draw_curves(curves)
    steps = [line for line in lines(figure) if len(line[0]) == len(curves[0].radius)]
    for (x, y), curve in zip(steps, curves, strict=True):
        np.testing.assert_array_equal(x, curve.radius)
        np.testing.assert_array_equal(y, 100 * curve.accuracy)
    words = [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()]
    assert words == ["one", "_two"], "a name that begins with an underscore is a name"


def test_colours_and_dashes_tell_many_curves_apart():
    looks = {(COLOURS[k % len(COLOURS)], str(DASHES[k % len(DASHES)])) for k in range(42)}
    assert len(looks) == 42


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_input_gives_the_same_bytes(kind, tmp_path):
    told = curve_of(result([0.2, 0.4, 0.9], [True, True, False], "$x_1$ a <b> & c"))
    files = [tmp_path / f"{k}.{kind}" for k in range(2)]
    for file in files:
        save(draw_curves([told]), file, "$title$ <script>")
    content = files[0].read_bytes()
    assert content == files[1].read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    if kind == "svg":
        text = content.decode()
        assert "<script>" not in text
        assert "$x_1$ a &lt;b&gt; &amp; c" in text, "a name is no formula and no markup"


def test_the_envelope_is_the_best_run_at_joint_confidence():
    one, two = result([0.1, 0.2, 0.3] * 30, [True] * 90, "one"), result([0.0, 0.2, 0.9] * 30, [True] * 90, "two")
    data = envelope([one, two], 0.05)
    for r, accuracy, lower in zip(data.radius, data.accuracy, data.lower, strict=True):
        each = [run.at([r], 0.025) for run in (one, two)]
        assert accuracy == max(at.accuracy[0] for at in each)
        assert lower == max(at.test_set[0] for at in each)
    assert set(data.best) == {0, 1}


def test_each_method_has_an_envelope_and_bounds_hold_together():
    runs = [result([0.1, 0.2, 0.3] * 30, [True] * 90, "a1", group="a"),
            result([0.0, 0.2, 0.9] * 30, [True] * 90, "a2", group="a"),
            result([0.1, 0.4, 0.4] * 30, [True] * 90, "b1", group="b")]
    first, second = envelopes(runs, 0.06)
    assert (first.name, second.name) == ("a", "b")
    np.testing.assert_array_equal(first.accuracy, envelope(runs[:2], 0.06).accuracy)
    for one, members in ((first, runs[:2]), (second, runs[2:])):
        for r, lower in zip(one.radius, one.lower, strict=True):
            assert lower == max(run.at([r], 0.02).test_set[0] for run in members)
    assert len(draw_envelopes(Envelopes([first, second], [], [])).axes[0].get_legend().get_texts()) == 5


def test_the_envelope_of_attacks_is_the_best_model_at_each_eps(tmp_path):
    paths = [attacked(tmp_path / "one", (0.25, 0.5)), attacked(tmp_path / "two", (0.1, 0.25, 0.5), count=15)]
    data = gather("envelope", *(f"m={path}" for path in paths))
    (best,) = data.attacked
    assert (best.name, best.eps.tolist()) == ("m", [0, 0.25, 0.5])
    each = [{o.size: o.accuracy for o in outcomes(read_store(path))} for path in paths]
    assert best.accuracy.tolist() == [max(one[eps] for one in each) for eps in best.eps]
    low = [clopper_pearson(round(one[0.5] * n), n, 0.025 / 2, "lower") for one, n in zip(each, (20, 15), strict=True)]
    assert best.low[-1] == max(low)
    picture("envelope", paths)
    other = attacked(tmp_path / "three", (0.3, 0.7))
    with pytest.raises(InputError, match="no sizes in common"):
        picture("envelope", [paths[0], other])


def test_the_upper_bound_is_the_least_perturbation_that_worked(tmp_path, stores):
    """Of the made-up attacks: images 0 mod 3 fall at .25, 1 mod 3 at .5, and 2 mod 3 stand."""
    store = read_store(attacked(tmp_path / "s"))
    upper = upper_bound(store, "deepfool")
    index = np.arange(20)
    for r in (0.0, 0.2, 0.25, 0.4, 0.5):
        fell = ((index % 3 == 0) & (r >= 0.25)) | ((index % 3 == 1) & (r >= 0.5))
        place = np.searchsorted(upper.radius, r, side="right") - 1
        assert upper.accuracy[place] == pytest.approx(1 - fell.mean())
    figure = picture("curve", [stores[0], tmp_path / "s"])
    words = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert words[-1].endswith("empirical upper bound")
    assert lines(figure)[-1][0].tolist() == upper.radius.tolist()


def test_every_m_has_a_curve_of_its_own(tmp_path, stores):
    several = write_like_m(attacked(tmp_path / "s"), tmp_path / "m")
    data = gather("empirical", stores[0], several)
    assert [one.name.rpartition(", ")[2] for one in data.observed] == ["m 4", "m 8"]
    found = {(o.m, o.size): o.accuracy for o in outcomes(read_store(several))}
    for one, m in zip(data.observed, (4, 8), strict=True):
        assert one.accuracy.tolist() == [found[0, 0], found[m, 0.25], found[m, 0.5]]


@pytest.mark.parametrize(("kind", "changes", "words"), [
    ("curve", {"count": 15}, "the runs are over different images; attack has 15 of the 60 images"),
    ("curve", {"count": 60, "split": "train"}, "attack is over digits (train) and store over digits (test)"),
    ("empirical", {"count": 20, "split": "train"}, "attack is over digits (train)"),
])
def test_attacks_on_other_data_or_images_are_not_to_be_compared(tmp_path, kind, changes, words):
    store, path = made(tmp_path / "store"), attacked(tmp_path / "attack", count=changes["count"])
    if split := changes.get("split"):
        other, path = read_store(path), tmp_path / "other" / "attack"
        identity = {**other.identity.raw, "data": {**other.identity.data.raw, "split": split}}
        write_store(path, identity, {}, [Record.from_row(row) for row in other.records.to_pylist()])
    with pytest.warns(UserWarning, match="not to be compared") as caught:
        figure = picture(kind, [store, path])
    assert words in str(caught[0].message)
    assert words[:40] in figure.get_suptitle().replace("\n", " "), "above the picture too"
    for k in range(2):
        save(figure, tmp_path / f"{k}.svg", "Title")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
    assert figure.get_suptitle().startswith("Title\nNot to be compared")
    found = gather_page([str(store), str(path)], None)
    page = report_page(found.runs, attacks=found.attacks)
    assert words in page


def test_attacks_on_the_same_images_are_drawn_without_a_warning(tmp_path):
    store, whole, part = made(tmp_path / "s"), attacked(tmp_path / "w", count=60), attacked(tmp_path / "p", count=15)
    with warnings.catch_warnings(action="error"):
        picture("curve", [store, whole])
        picture("empirical", [store, part])
        picture("scatter", [store, made(tmp_path / "few", count=15)])
    for kind, first in (("envelope", whole), ("abstention", store), ("votes", store), ("wall", store)):
        second = part if first == whole else made(tmp_path / f"of-{kind}", count=15)
        with pytest.warns(UserWarning, match="15 of the 60 images"):
            picture(kind, [first, second])


def test_the_axis_ends_where_the_data_do(tmp_path):
    paths = [attacked(tmp_path / "one"), attacked(tmp_path / "two")]
    store = made(tmp_path / "s", sigma=0.05)
    radius = Result.of(read_store(store)).radius.max()
    for kind, stores, most in (("envelope", paths, 0.5), ("curve", paths[:1], 0.5), ("curve", [store], radius),
                               ("empirical", [store, paths[0]], 0.5)):
        with warnings.catch_warnings(action="ignore"):
            right = picture(kind, stores).axes[0].get_xlim()[1]
        assert most <= right <= 1.05 * most, kind


def write_like_m(source: Path, folder: Path) -> Path:
    """The attack store with every attack a second time, as of m = 8 and never successful."""
    store, records = read_store(source), []
    for row in store.records.to_pylist():
        records.append(Record.from_row(row))
        if row["m"] and row["eps"] == 0.5:  # the settings of one image are over
            for eps in (0.25, 0.5):
                counts = np.eye(10, dtype=int)[row["label"]] * 100
                again = {**row, "m": 8, "eps": eps, "l2": eps, "prediction": row["label"],
                         "tallies": [vars(Tally.of("predict", counts))]}
                records.append(Record.from_row(again))
    told = {**store.identity.attack.raw, "m": [4, 8]}
    write_store(folder, {**store.identity.raw, "attack": told, "records_per_image": 5}, {}, records)
    return folder


def test_the_theorems_are_those_of_the_papers(stores):
    store = read_store(stores[0])
    told = theorems(store)
    assert list(told.radii) == ["Cohen et al. 2019", "Li et al. 2018", "Lecuyer et al. 2019"]
    np.testing.assert_allclose(told.radii["Cohen et al. 2019"], 0.25 * norm.ppf(told.p_a), atol=1e-6)
    first, second, third = told.radii.values()
    assert (first >= second - 1e-12).all()
    assert (second >= third - 1e-12).all()
    lower = votes_of(store).lower(0.001)[0]
    assert told.images.tolist() == sorted(lower[lower > 0.5])
    assert (told.sigma, told.alpha, told.n) == (0.25, 0.001, 1000)
    assert (told.samples[0], told.samples[-1]) == (10, 10_000_000)
    np.testing.assert_allclose(told.most, np.maximum(0.25 * norm.ppf(0.001 ** (1 / told.samples)), 0), atol=1e-9)
    axes = picture("theorems", stores[:1]).axes
    for panel, curves in ((axes[0], told.radii.values()), (axes[1], [told.most])):
        assert panel.get_ylim()[1] > max(curve.max() for curve in curves), "nothing is cut off"


def test_the_bounds_are_the_papers_from_the_same_counts(stores):
    store = read_store(stores[0])
    cohen, li, lecuyer = compare_bounds(store, "a", 0.05)
    votes = votes_of(store)
    radius = np.asarray(cohen_radius(votes.lower(0.001)[0], None, 0.25))
    right = (votes.chosen == store.column("label")) & (radius > 0)
    for r in (0.0, 0.1, 0.3):
        assert value_at(cohen, np.array([r]))[0] == np.mean(right & (radius >= r))
    for r in np.linspace(0.01, 0.6, 20):
        first, second, third = (value_at(curve, np.array([r]))[0] for curve in (cohen, li, lecuyer))
        assert first >= second >= third
    assert lecuyer.radius[-1] < li.radius[-1] < cohen.radius[-1]


def test_a_projection_to_the_runs_own_n_and_alpha_is_the_run(stores):
    store = read_store(stores[0])
    same_n = project_over_n(store, "a", [1000, 100_000], 0.05)
    np.testing.assert_array_equal(same_n[0].accuracy, same_n[1].accuracy)
    np.testing.assert_array_equal(same_n[0].radius, same_n[1].radius)
    assert same_n[2].radius[-1] > same_n[0].radius[-1]
    np.testing.assert_array_equal(same_n[2].lower, same_n[2].accuracy)  # no bound is claimed for an estimate
    same, larger = project_over_alpha(store, "a", [0.001, 0.1], 0.05)[1:]
    np.testing.assert_array_equal(same.radius, same_n[0].radius)
    grid = np.linspace(0, 0.8, 50)
    assert (value_at(larger, grid) >= value_at(same, grid)).all()


def test_shares_the_wall_and_pairs_count_images(stores):
    store = read_store(stores[0])
    told = Result.of(store)
    found = shares([told])
    assert found.right[0] + found.wrong[0] + found.abstained[0] == pytest.approx(1)
    assert found.abstained[0] == np.mean(store.column("prediction") < 0)
    stood = wall([told])
    assert stood.wall[0] == pytest.approx(0.25 * norm.ppf(0.001 ** (1 / 1000)), rel=1e-9)
    assert stood.radii[0].max() <= stood.wall[0]
    assert stood.at_wall[0] == np.mean(store.column("radius") >= 0.99 * stood.wall[0])
    shifted = replace(told, index=told.index + 10, label=np.roll(told.label, -10))
    both = pairs(told, shifted)
    assert len(both.first) == told.images - 10
    np.testing.assert_array_equal(both.first, np.where(told.correct, told.radius, 0)[10:])
    with pytest.raises(InputError, match="no image in common"):
        pairs(told, replace(told, index=told.index + 1000))
    other = {**told.setting, "data": {**told.setting["data"], "name": "mnist"}}
    with pytest.raises(InputError, match="mnist"):
        pairs(told, replace(told, setting=other))


def test_a_wall_of_runs_that_certify_nothing_gives_no_warning(tmp_path):
    nothing = result([0.0, 0.0], [False, False], sigma=float("nan"), n=0)
    with warnings.catch_warnings(action="error"):
        save(draw_wall(wall([nothing])), tmp_path / "wall.svg", "")


def test_votes_are_refused_where_they_are_no_binomial_sample(tmp_path, stores):
    procedure = {"design": "radii", "method": "cohen", "alpha": 0.001, "n0": 100, "n_max": 1000, "radii": [0.25],
                 "margin": None}
    with pytest.raises(StoreError, match="stopped sampling when its radii were decided"):
        votes_of(read_store(made(tmp_path / "radii", procedure=procedure)))
    log = tmp_path / "sigma_0.25.tsv"
    log.write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t1\t1\t0.3\t1\t1.0\n")
    with pytest.raises(StoreError, match="no votes"):
        picture("bounds", [log])


def test_the_gallery_is_sorted_and_shows_the_runs_own_noise(stores):
    store = read_store(stores[0])
    gallery = gallery_of(store, images_of, 20)
    certified = gallery.prediction >= 0
    assert (np.diff(gallery.radius[certified]) <= 0).all()
    assert not certified[certified.sum():].any(), "the abstained come last"
    assert gallery.radius[0] == store.column("radius").max()
    np.testing.assert_array_equal(gallery.clean[3], DIGITS.image(int(gallery.index[3])))
    first, noise = np.empty((1, 64), np.float32), build_noise("grid", 0.25, 16)
    stream = open_stream("sfc64-v1", store.identity.seed, int(gallery.index[3]), "estimate", 64)
    noise.fill(first, noise.centre(gallery.clean[3]), stream)
    np.testing.assert_array_equal(gallery.noisy[3].ravel(), first[0])
    assert gallery.drawn
    assert not gallery.lossy


def of_data(store, **changes) -> Identity:
    return Identity.parse({**store.identity.raw, "data": {**store.identity.data.raw, **changes}})


def test_other_data_than_the_stores_are_refused(stores, tmp_path):
    store = read_store(stores[0])
    assert reopen_data(store).fingerprint(np.arange(60)) == store.identity.data.sha256
    changed = replace(store, identity=of_data(store, sha256="0" * 64))
    with pytest.raises(InputError, match="SHA-256"):
        reopen_data(changed)
    with pytest.raises(InputError, match="other labels"):
        reopen_data(replace(store, identity=of_data(store, split="train")))
    with pytest.raises(InputError, match="give --data"):
        reopen_data(replace(store, identity=of_data(store, name="parquet:x")))


def test_panels_share_their_noise_and_pooling_divides_sigma():
    image = np.full((1, 64, 64), 0.5, np.float32)
    panels = noise_panels(image, [0.25, 0.5])
    np.testing.assert_allclose(2 * (panels.noisy[0] - image), panels.noisy[1] - image, atol=1e-6)
    study = resolution_study(image, 0.5)
    assert study.side.tolist() == [64, 32, 16]
    assert [part.shape for part in study.pooled] == [(1, 16, 16)] * 3
    for part, clean, residual in zip(study.pooled, study.clean, study.residual, strict=True):
        left = part - average_pool(clean, clean.shape[1] // 16)
        assert left.std() == pytest.approx(residual, rel=4 / np.sqrt(2 * 256))  # four standard errors
    with pytest.raises(InputError, match="cannot be pooled"):
        resolution_study(np.zeros((1, 3, 3), np.float32), 0.5)


def test_decision_regions_of_a_linear_classifier_are_half_planes():
    w = np.random.default_rng(0).normal(size=16)
    w /= np.linalg.norm(w)
    image, noise = np.full((1, 4, 4), 0.5, np.float32), build_noise("gaussian", 0.5)
    margin = 0.2
    offset = float(image.ravel() @ w) - margin

    def answers(images: np.ndarray) -> np.ndarray:
        return (images.reshape(len(images), -1) @ w < offset).astype(np.int64)

    found = decision_regions(answers, image, noise, 2, points=41, n=4000)
    u, v = found.directions
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(2), atol=1e-9)
    b, a = np.meshgrid(found.offsets, found.offsets, indexing="ij")
    distance = margin + a * (u @ w) + b * (v @ w)
    clear = np.abs(distance) > 1e-5
    np.testing.assert_array_equal(found.classes[clear], (distance < 0)[clear])
    assert found.counts[0] / 4000 == pytest.approx(norm.cdf(margin / 0.5), abs=4 * 0.5 / np.sqrt(4000))
    assert u @ w < -0.9, "u leads to the runner-up, so against w"
    assert found.typical == pytest.approx(0.5 * 4)


SOURCES = {"images_of": images_of,
           "answers_of": lambda store: lambda images: images.mean(axis=(1, 2, 3)).astype(np.int64),
           "estimates_of": lambda store: Estimates(lambda noisy: noisy / 2)}


def test_every_kind_draws_a_figure_and_is_a_sub_command(stores, tmp_path):
    shown = " ".join(CliRunner().invoke(app, ["plot", "--help"]).output.replace("│", " ").split())
    for name, kind in KINDS.items():
        assert f" {name} {kind.words[0].upper()}{kind.words[1:20]}" in shown
        if name in ("empirical", "labels", "widths"):  # of other stores; tests/runs draws the last two
            continue
        figure = picture(name, stores[:kind.options.least], **SOURCES, **({"count": 4} if name == "gallery" else {}))
        assert isinstance(figure, Figure)
        save(figure, tmp_path / f"{name}.svg")
        text = (tmp_path / f"{name}.svg").read_text()
        assert "nan" not in text.lower().split("<metadata>")[0]


def test_a_kind_takes_its_own_options_alone():
    own = {name: {field for part in (kind.options, *kind.needs) for field in part.model_fields} - {"stores"}
           for name, kind in KINDS.items()}
    for name in KINDS:
        shown = CliRunner().invoke(app, ["plot", name, "--help"]).output
        for field in set.union(*own.values()):
            assert (f"--{field.replace('_', '-')} " in shown) == (field in own[name]), (name, field)
    with pytest.raises(ConfigError, match="count: unknown option"):
        picture("curve", ["a"], count=3)


@pytest.mark.parametrize(("kind", "source"), [
    ("gallery", "images_of"), ("regions", "answers_of"), ("denoised", "estimates_of")])
def test_a_kind_says_which_source_it_lacks(kind, source, stores):
    with pytest.raises(InputError, match=f"give {source}"):
        picture(kind, stores[:1], **{name: value for name, value in SOURCES.items() if name != source})


def test_a_picture_is_made_from_a_configuration_file(stores, tmp_path):
    run, file = partial(CliRunner().invoke, app), tmp_path / "c.yaml"
    file.write_text(f"stores: {stores[0]}\ncount: 3\ntitle: T\nout: {tmp_path / 'a.png'}\n")
    for more in (["--config", str(file)], [str(stores[0]), "--count", "3", "--title", "T", "-o", f"{tmp_path}/b.png"]):
        done = run(["plot", "gallery", *more])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    file.write_text("stores: [a, b]\ncount: 0\nrho: 0.1\nout: a.jpg\ncrop: x\n")
    wrong = run(["plot", "gallery", "--config", str(file)])
    assert wrong.exit_code == 2
    for words in ("5 mistakes", "takes 1 store, got 2", "count: ", "rho: unknown option", ".svg", "crop: "):
        assert words in wrong.output


def test_certified_beside_empirical_draws_both():
    curve = curve_of(result([0.2, 0.4, 0.9], [True, True, False]))
    eps = np.array([0.0, 0.5])
    seen = Observed("attacked", eps, np.array([0.9, 0.7]), np.array([0.8, 0.6]), np.array([0.95, 0.8]))
    figure = draw_empirical(Empirical([curve], [seen]))
    drawn = [line for line in lines(figure) if len(line[0]) == 2 and np.array_equal(line[0], eps)]
    assert any(np.allclose(y, [90, 70]) for _, y in drawn)


@pytest.mark.parametrize(("arguments", "words"), [
    (["curv", "A", "-o", "x.png"], 'did you mean "curve"'),
    (["curve", "A", "-o", "x.jpg"], ".png, .svg, .pdf"),
    (["curve", "A", "-o", "x"], ".png, .svg, .pdf"),
    (["curve", "A", "-o", "x.png", "--n", "100"], "kinds do: projection, contraction"),
    (["scatter", "A", "-o", "x.png"], "takes 2 stores, got 1"),
    (["regions", "A", "-o", "x.png"], "model: is required"),
    (["gallery", "LOG", "-o", "x.png"], "needs a store"),
    (["votes", "LOG", "-o", "x.png"], "no votes"),
    (["empirical", "A", "B", "-o", "x.png"], "at least one of each"),
    (["projection", "A", "-o", "x.png", "--n", "10", "--alpha", ".1"], "give one of them"),
    (["projection", "A", "-o", "x.png", "--n", "1.5"], "valid integer"),
    (["panels", "A", "-o", "x.png", "--image", "4000"], "not among those"),
    (["gallery", "A", "-o", "x.png", "--count", "0"], "count: input should be"),
    (["curve", "A", "-o", "x.png", "--image", "0"], "No such option: --image"),
    (["wall", "A", "-o", "x.png", "--rho", ".1"], "kinds do: curve, envelope"),
    (["curve", "A"], "out: is required"),
    (["curve", "-o", "x.png"], "stores: is required"),
    (["curve", "A", "-o", "x.png", "--rho", "2"], "rho"),
    (["curve", "nowhere", "-o", "x.png"], "nowhere"),
])
def test_bad_requests_say_what_to_do(arguments, words, stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t999999\t1\t0.3\t0\t1\n")
    places = {"A": str(stores[0]), "B": str(stores[1]), "LOG": "log.tsv"}
    done = CliRunner().invoke(app, ["plot", *(places.get(a, a) for a in arguments)])
    assert done.exit_code in (1, 2)
    assert words in " ".join(done.output.replace("│", " ").split())
    assert not list(tmp_path.glob("x*")), "nothing is left behind"


def test_the_command_writes_the_picture_it_was_asked_for(stores, tmp_path):
    run = partial(CliRunner().invoke, app)
    for kind, more in (("curve", []), ("gallery", ["--count", "3"]), ("panels", ["--image", "5", "--sigma", ".5,1"])):
        out = tmp_path / "new" / f"{kind}.png"
        done = run(["plot", kind, str(stores[0]), *more, "--title", "T", "-o", str(out)])
        assert done.exit_code == 0, done.output
        assert out.read_bytes().startswith(b"\x89PNG")


def test_errors_are_smoothcerts_own():
    with pytest.raises(UnknownNameError, match="envelope"):
        picture("envelop", ["a"])
    with pytest.raises(SmoothcertError):
        noisy_copy(np.zeros((1, 2, 2), np.float32), build_noise("gaussian", 0.5), -1, 0)


def test_pictures_print_no_formulas_and_round_r_max_down(stores, tmp_path):
    for kind in ("votes", "wall"):
        save(picture(kind, stores), tmp_path / f"{kind}.svg")
    assert "mathdefault" not in (tmp_path / "votes.svg").read_text()
    words = (tmp_path / "wall.svg").read_text()
    assert "r_max 0.615: " in words, "0.6158"
    assert "r_max 1.231: " in words, "1.2316"


def test_a_band_has_an_edge_and_a_legend_names_the_first_runs():
    curves = [curve_of(result([0.2, 0.4, 0.9], [True, True, False], f"r{k}")) for k in range(40)]
    axes = draw_curves(curves).axes[0]
    assert all(band.get_linewidth()[0] > 0 for band in axes.collections)
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words[-2:] == ["r23", "and 16 more"]


@pytest.mark.parametrize("kind", ["curve", "wall", "abstention", "envelope", "scatter"])
def test_a_picture_is_drawn_in_given_axes(stores, kind):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    drawn = picture(kind, stores[:2], ax=right)
    assert drawn is figure
    assert right.get_xlabel()
    assert not left.get_xlabel()
    alone = picture(kind, stores[:2]).axes[0]
    assert right.get_xlim() == alone.get_xlim()
    for axes in (right, alone):
        assert len(axes.lines) + len(axes.patches) > 0
    assert len(right.lines) == len(alone.lines)


def test_a_kind_of_several_axes_takes_none(stores):
    with pytest.raises(InputError, match="ax: the picture theorems is not drawn in one pair of axes"):
        picture("theorems", stores[:1], ax=Figure().subplots())


def test_a_notebook_shows_a_picture(stores):
    assert picture("curve", stores[:1])._repr_png_().startswith(b"\x89PNG")
