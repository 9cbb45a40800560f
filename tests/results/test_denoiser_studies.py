"""Studies of denoisers: recipes that plan and run, contraction and slide in closed form, the images where one loses."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from smoothcert import SmoothedClassifier
from smoothcert.classifiers.folder import ModelCard, write_card, write_weights
from smoothcert.cli.main import app
from smoothcert.denoise import GaussianDenoiser, build_denoiser
from smoothcert.errors import InputError
from smoothcert.noise import build_noise
from smoothcert.recipes.plan import plan
from smoothcert.recipes.recipe import read_recipe, recipe_names
from smoothcert.report.plots import picture
from smoothcert.report.plots.images import draw_denoised, draw_failures
from smoothcert.results.denoising import Captioned, Estimates, contraction_and_slide, denoise_copies, failures_of
from smoothcert.results.gallery import linear_margins, noisy_copies
from smoothcert.store.identity import Identity
from smoothcert.store.store import read_store
from stores import DIGITS, made

SIGMA = 0.5
RECIPES = [name for name in recipe_names() if name.startswith("saremi2020")]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Two stores, and two denoisers with random weights, of sigma and of a tenth of it."""
    folder = tmp_path_factory.mktemp("studies")
    for seed, name in enumerate(("h", "pi")):
        made(folder / name, SIGMA, seed, count=20, right=2)
    for name, sigma in (("denoiser", SIGMA), ("fine", SIGMA / 10)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build_denoiser("direct", (1, 8, 8), sigma, network="mlp", width=8, depth=1)
        card = ModelCard("direct", {"network": "mlp", "width": 8, "depth": 1}, (1, 8, 8), 10, DIGITS.class_names, 16,
                         {"data": "digits"}, sigma, {}, kind="denoiser", complete=True)
        (folder / name).mkdir()
        write_card(folder / name, card)
        write_weights(folder / name / "best.safetensors", network)
    return folder


def images_of(store):
    return DIGITS


def shrunk(beta: float) -> Estimates:
    return Estimates(lambda noisy: beta * noisy)


# Recipes


def test_every_table_and_figure_has_a_recipe():
    names = ["figure2", "figure3", "figure4", "figure5", "figure6", "table1", "table2"]
    assert [name.removeprefix("saremi2020-") for name in RECIPES] == names
    for name in RECIPES:
        for scale in ("smoke", "cpu", "paper"):
            plan(read_recipe(name), scale)


def test_printed_figures_are_the_papers():
    printed = {best.name: best.accuracy for name in RECIPES for best in read_recipe(name).best}
    assert printed == {"g[h]": {0.5: .71, 1: .30, 1.5: .07, 2: .01}, "g[pi]": {0.5: .88, 1: .77, 1.5: .56, 2: .28},
                       "XHAT": {0.5: .98, 1: .95, 1.5: .81, 2: .57}}


def test_rows_behind_a_denoiser_train_one_and_keep_their_sigma():
    for name in RECIPES:
        for scale in ("smoke", "cpu", "paper"):
            for row, tasks in plan(read_recipe(name), scale).tasks.items():
                trained = {task.step: task.options for task in tasks if task.verb == "train"}
                behind = row.startswith(("pi", "xhat", "walk-jump"))
                assert ("denoiser" in trained) == behind, (name, row)
                certified = tasks[-1].options
                if behind:
                    assert trained["denoiser"]["sigma"] == certified["sigma"]
                if row.startswith("xhat0"):
                    assert trained["model"]["objective_option"]["eps"] == 0
                assert certified["method"] == "cohen"


def test_figures_share_what_the_tables_trained():
    def folders(name: str, row: str, scale: str) -> list[str]:
        return [task.folder for task in plan(read_recipe(f"saremi2020-{name}"), scale).tasks[row]]

    for scale in ("cpu", "paper"):
        assert folders("table1", "pi-0.6", scale)[:2] == folders("figure4", "pi-0.6", scale)[:2]
        assert folders("table1", "pi-0.6", scale)[1] == folders("table2", "xhat-0.6", scale)[0]
        assert folders("figure6", "walk-jump", scale)[:2] == folders("figure4", "pi-0.6", scale)[:2]
        assert folders("figure2", "pi-0.6", scale) == folders("figure4", "pi-0.6", scale)
    assert folders("table2", "xhat-0.6", "paper") == folders("figure5", "xhat-0.6-n1e6", "paper")


@pytest.mark.parametrize("scale", ["smoke", "cpu", "paper"])
def test_figure_6_walks_at_sigma_0_05_from_the_estimate_at_0_6(scale):
    tasks = plan(read_recipe("saremi2020-figure6"), scale).tasks
    trained = {task.step: task for task in tasks["walk-jump"] if task.verb == "train"}
    certified = tasks["walk-jump"][-1].options
    assert (trained["denoiser"].options["sigma"], trained["fine"].options["sigma"]) == (0.6, 0.05)
    assert (certified["denoiser"].folder, certified["walk_jump"].folder) == (
        trained["denoiser"].folder, trained["fine"].folder)
    assert certified["front_option"] == {"step": 0.001, "steps": 3 if scale == "smoke" else 100}
    assert "walk_jump" not in tasks["pi"][-1].options


def test_a_recipe_runs_at_scale_smoke(tmp_path):
    done = CliRunner().invoke(app, ["reproduce", "saremi2020-figure3", "--scale", "smoke", "--threads", "1", "-q",
                                    "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "steps").glob("certify-*"))) == 2


# Contraction and slide


@pytest.mark.parametrize("s0", [0.3, 1.0])
@pytest.mark.parametrize("kind", ["gaussian", "grid"])
def test_a_gaussian_denoiser_contracts_by_beta_and_slides(s0, kind):
    denoiser, images = GaussianDenoiser(s0), DIGITS.batch(range(4))

    def estimate(noisy: np.ndarray) -> np.ndarray:
        return denoiser(torch.from_numpy(noisy), SIGMA).numpy()

    found = contraction_and_slide(images, np.arange(4), estimate, build_noise(kind, SIGMA, 16), copies=4)
    beta = 1 / (1 + SIGMA**2 / s0**2)
    np.testing.assert_allclose(found.contraction, beta, rtol=1e-5)
    lengths = np.linalg.norm(images.reshape(4, -1), axis=1)
    np.testing.assert_allclose(found.slide, (1 - beta) * lengths, rtol=1e-4)


def test_estimates_are_right_on_average_where_x_hat_is_curved():
    """x_hat = y^2 / 2 at x = 1/2: its mean is (x^2 + sigma^2) / 2, its variance sigma^2 x^2 + sigma^4 / 2 a pixel."""
    x, d, k = 0.5, 64, 4
    images = np.full((400, 1, 8, 8), x, dtype=np.float32)
    found = contraction_and_slide(images, np.arange(400), lambda y: y**2 / 2, build_noise("gaussian", SIGMA), copies=k)
    slide, shares = d * ((x**2 + SIGMA**2) / 2 - x) ** 2, (x**2 + SIGMA**2 / 2)
    for squares, exact in ((found.slide**2, slide), (found.contraction**2, shares)):
        assert squares.mean() == pytest.approx(exact, abs=4 * squares.std() / np.sqrt(400) + 0.01 * exact)
    uncorrected = slide + d * SIGMA**4 / 2 / (k / 2)  # what the mean of two pairs adds
    assert abs((found.slide**2).mean() - slide) < 0.2 * (uncorrected - slide)


def test_the_identity_neither_contracts_nor_slides():
    found = contraction_and_slide(DIGITS.batch([0]), np.arange(1), lambda y: y, build_noise("gaussian", SIGMA))
    assert found.contraction[0] == pytest.approx(1, rel=1e-5)
    assert found.slide[0] < 1e-5
    assert (found.copies, found.sigma) == (64, SIGMA)


@pytest.mark.parametrize(("copies", "words"), [(5, "even"), (2, "at least 4")])
def test_copies_come_in_pairs(copies, words):
    with pytest.raises(InputError, match=words):
        contraction_and_slide(DIGITS.batch([0]), np.arange(1), lambda y: y, build_noise("gaussian", SIGMA), copies)


# Margins


def test_no_radius_of_a_linear_classifier_exceeds_its_margin():
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(10, 64)), rng.normal(size=10)
    images = DIGITS.batch(range(40))
    found = linear_margins(images, weight, bias)
    h = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    with torch.no_grad():
        h[1].weight.copy_(torch.from_numpy(weight))
        h[1].bias.copy_(torch.from_numpy(bias))
    g = SmoothedClassifier(h.eval(), sigma=0.1, num_classes=10, seed=0, noise="gaussian")
    radii = np.array([c.radius for c in g.certify(torch.from_numpy(images), n=10_000)])
    assert (radii > 0).sum() > 20
    assert (radii <= found.margin).all()
    logits = images.reshape(40, -1) @ weight.T + bias
    np.testing.assert_array_equal(found.prediction, logits.argmax(axis=1))
    for i in range(40):
        for c in set(range(10)) - {int(found.prediction[i])}:  # a step of the margin reaches no other class
            away = weight[c] - weight[found.prediction[i]]
            moved = logits[i] + found.margin[i] * (1 - 1e-9) * weight @ (away / np.linalg.norm(away))
            assert moved[c] <= moved[found.prediction[i]]


def test_margins_refuse_weights_of_other_shapes():
    with pytest.raises(InputError, match="weight must be"):
        linear_margins(DIGITS.batch([0]), np.zeros((10, 63)), np.zeros(10))


# Pictures


def test_panels_hold_the_estimates_of_the_noisy_images():
    clean = DIGITS.batch(range(3))
    noisy = np.concatenate([noisy_copies(image, build_noise("gaussian", SIGMA), 1, 0, k, "estimate")
                            for k, image in enumerate(clean)])
    found = denoise_copies(clean, noisy, Estimates(lambda y: y / 2, lambda y: y / 4), SIGMA)
    np.testing.assert_array_equal(found.estimates, noisy / 2)
    np.testing.assert_array_equal(found.walked, noisy / 4)
    expected = np.square((noisy / 2 - clean).astype(float)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.error(found.estimates), expected, rtol=1e-6)
    assert denoise_copies(clean[0], noisy, shrunk(1), SIGMA).clean.shape == noisy.shape


@pytest.mark.parametrize("shape", [(6,), (2, 16), (2, 3, 4, 5)])
def test_panels_show_the_errors_of_inputs_of_any_shape(shape):
    clean = np.zeros((2, *shape), np.float32)
    noisy = np.stack([np.full(shape, 1.0), np.full(shape, 2.0)])
    data = denoise_copies(clean, noisy, shrunk(0.5), SIGMA)
    figure = draw_denoised(Captioned(data, ("first", "second")))
    told = [axes.get_xlabel() for axes in figure.axes if axes.get_xlabel()]
    size = np.prod(shape)
    assert told == [f"error {error * size:.4g}" for error in (1, 4, 0.25, 1)]


def test_failures_are_the_images_where_the_first_run_proves_more(home):
    first, second = read_store(home / "h"), read_store(home / "pi")
    found = failures_of((first, "h"), (second, "pi"), images_of, shrunk(0.5), 5)
    radii = [np.where(s.column("prediction") == s.column("label"), s.column("radius"), 0) for s in (first, second)]
    assert 0 < found.count == int((radii[0] > radii[1]).sum()) < found.of == 20
    assert len(found.index) == min(5, found.count)
    np.testing.assert_array_equal(found.first, radii[0][found.index])
    np.testing.assert_array_equal(found.second, radii[1][found.index])
    gaps = found.first - found.second
    assert (np.diff(gaps) <= 0).all()
    assert gaps[0] == (radii[0] - radii[1]).max()
    np.testing.assert_array_equal(found.clean, DIGITS.batch(found.index))
    np.testing.assert_array_equal(found.estimates, found.noisy / 2)
    assert found.words == tuple(DIGITS.class_names[DIGITS.labels[i]] for i in found.index)
    same = failures_of((first, "h"), (first, "h"), images_of, None, 5)
    assert (same.count, len(same.index), same.estimates) == (0, 0, None)
    assert "0 of 20" in draw_failures(same).get_supxlabel()


def test_radii_that_are_lower_bounds_are_not_compared(tmp_path, home):
    procedure = {"design": "radii", "method": "cohen", "alpha": 0.001, "n0": 100, "n_max": 1000, "radii": [0.25],
                 "margin": None}
    store = read_store(home / "pi")
    bounded = replace(store, identity=Identity.parse({**store.identity.raw, "procedure": procedure}))
    with pytest.raises(InputError, match="lower bounds"):
        failures_of((read_store(home / "h"), "h"), (bounded, "pi"), images_of, None, 5)


def test_pictures_draw_their_arrays(home):
    draw = partial(picture, stores=[home / "pi"], images_of=images_of,
                   estimates_of=lambda store: Estimates(lambda y: y / 2, lambda y: y / 4))
    figure = draw("contraction", count=5, n=4)
    points = np.concatenate([np.stack(line.get_data(), axis=1) for line in figure.axes[0].lines if len(
        line.get_xdata()) > 0 and line.get_marker() not in ("None", None, "")])
    np.testing.assert_allclose(points[:, 0], 0.25, rtol=1e-5)  # of what follows the estimate
    assert len(points) == 5
    panels = draw("denoised", count=3)
    assert len(panels.axes) == 4 * 3
    copies = draw("denoised", count=2, image=7)
    assert [axes.get_title() for axes in copies.axes[:2]] == ["copy 1", "copy 2"]
    shown = [axes.images[0].get_array() for axes in copies.axes]
    np.testing.assert_array_equal(shown[0], DIGITS.image(7)[0])
    assert not np.array_equal(shown[2], shown[3])


def test_the_command_draws_what_a_denoiser_does(home, tmp_path):
    stores, how = [str(home / "h"), str(home / "pi")], ["--denoiser", str(home / "denoiser")]
    walk = ["--walk-jump", str(home / "fine"), "--front-option", "step=0.01", "--front-option", "steps=2"]
    for kind, given, more in (("denoised", stores[1:], [*how, *walk, "--count", "2"]),
                              ("failures", stores, [*how, "--count", "2"]),
                              ("contraction", stores[1:], [*how, "--count", "3", "--n", "4"])):
        files = [tmp_path / f"{kind}{k}.svg" for k in range(2)]
        for file in files[:2 if kind == "denoised" else 1]:
            done = CliRunner().invoke(app, ["plot", kind, *given, *more, "-o", str(file)])
            assert done.exit_code == 0, done.output
        if kind == "denoised":
            assert files[0].read_bytes() == files[1].read_bytes(), "a walk is drawn from the store's seed"


@pytest.mark.parametrize(("arguments", "words"), [
    (["denoised", "PI"], "denoiser: is required"),
    (["contraction", "PI", "--walk-jump", "FINE"], "denoiser: is required"),
    (["denoised", "PI", "--denoiser", "FINE"], "for sigma 0.05"),
    (["denoised", "PI", "--denoiser", "PI"], "not a model folder"),
    (["contraction", "PI", "--denoiser", "DENOISER", "--n", "4,8"], "valid integer"),
    (["contraction", "PI", "--denoiser", "DENOISER", "--n", "5"], "even"),
    (["failures", "PI"], "takes 2 stores"),
    (["denoised", "PI", "--denoiser", "DENOISER", "--front-option", "steps=2"], "goes to walk-jump"),
])
def test_bad_requests_say_what_to_do(arguments, words, home, tmp_path):
    names = {"PI": home / "pi", "FINE": home / "fine", "DENOISER": home / "denoiser"}
    done = CliRunner().invoke(app, ["plot", *(str(names.get(a, a)) for a in arguments), "-o", str(tmp_path / "x.png")])
    assert done.exit_code in (1, 2)
    assert words in done.output.replace("\n", " ")
    assert not list(tmp_path.glob("x*"))
