"""Inputs of any shape through every verb: one linear model, a table of shapes, few samples."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import smoothcert
from smoothcert import SmoothedClassifier
from smoothcert.attacks import ATTACKS, attack_images, build_attack, l2_norms
from smoothcert.errors import InputError, MissingExtraError, ModelError
from smoothcert.models import Normalise
from smoothcert.noise import build_noise
from smoothcert.quantisation.export import export_network
from smoothcert.report.html import report_page
from smoothcert.results.gather import gather_page
from smoothcert.runs.distributional import distributional
from smoothcert.runs.options import DistributionalConfig
from smoothcert.runs.reopen import reopen_answers, reopen_data
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

SHAPES = {"one number": (1,), "table": (5,), "series": (2, 6), "volume": (1, 2, 3, 4), "image": (1, 3, 4)}
SIGMA, FAST = 0.5, {"n": 200, "seed": 0}


def build(input_shape, num_classes):
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))
    with torch.no_grad():
        weight = network[1].weight
        weight.copy_(torch.sin(torch.arange(weight.numel()) + 1.0).reshape_as(weight))
        network[1].bias.zero_()
    return network.eval()


def draw(shape, count=32):
    """Inputs on no grid, most of them beyond [0, 1], and labels."""
    values = 3 * np.random.default_rng(0).standard_normal((count, *shape)).astype(np.float32)
    return values, (values.reshape(count, -1).sum(axis=1) > 0).astype(np.int64)


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return request.param


@pytest.fixture(scope="module")
def place(shape, tmp_path_factory):
    """A folder with `data.npz`."""
    folder = tmp_path_factory.mktemp("shape")
    values, labels = draw(shape)
    np.savez(folder / "data.npz", x=values, y=labels)
    return folder


@pytest.fixture(scope="module")
def store(place):
    return smoothcert.certify(build, f"npz:{place}/data.npz", sigma=SIGMA, n0=20, max_images=6, **FAST,
                              out=place / "store")


def test_a_run_has_plain_noise_and_the_data_s_own_units(store, shape):
    told = store.identity
    assert (told.noise.kind, told.data.shape, told.data.bounds) == ("gaussian", list(shape), None)
    values, _ = draw(shape)
    network = build(shape, 2)
    weight, bias = (part.detach().double().numpy() for part in (network[1].weight, network[1].bias))
    x = values[store.column("index")].reshape(store.num_records, -1).astype(float)
    gap = (x @ weight.T + bias) @ [1, -1]
    length = np.linalg.norm(weight[0] - weight[1])
    answered = store.column("prediction") >= 0
    assert answered.sum() >= 3
    assert (store.column("prediction")[answered] == (gap < 0)[answered]).all()
    assert (store.column("radius")[answered] <= np.abs(gap)[answered] / length).all()


def test_what_is_drawn_again_is_the_same(store, place):
    known = {"store": place / "store", "resample": 3, "model": build, "data": f"npz:{place}/data.npz"}
    assert not verify(VerifyConfig.parse(known)).problems


def test_attacks_keep_no_box_where_there_is_none(store, place, shape):
    data = f"npz:{place}/data.npz"
    smoothcert.attack(build, data, sigma=SIGMA, eps=1.0, m=2, steps=2, n=20, seed=0, max_images=6,
                      out=place / "attack", save_adversaries=True)
    moved = smoothcert.predict(build, data, sigma=SIGMA, n=20, seed=0, adversaries=place / "attack")
    attacked = smoothcert.read_store(place / "attack")
    sizes = attacked.column("l2")[attacked.column("eps") > 0]
    assert sizes.max() > 0.5
    assert sizes.max() <= 1
    assert moved.num_records == 6


def test_every_verb_takes_them(store, place, shape):
    data = f"npz:{place}/data.npz"
    options = {"model": build, "data": data, "sigma": SIGMA, "seed": 0, "gamma": "2", "max_images": 3,
               "out": place / "distributional"}
    assert set(distributional(DistributionalConfig.parse(options)).column("index")) == {0, 16, 31}
    g = SmoothedClassifier(build(shape, 2), SIGMA, 2, seed=0, noise="gaussian", levels=None, bounds=None,
                           input_shape=shape)
    assert smoothcert.certify(g, data, n0=20, n=200, max_images=6).records.equals(store.records)
    assert "certified accuracy" in str(smoothcert.table(store))
    for kind in ("gallery", "panels", "regions"):
        given = {"answers_of": lambda one: reopen_answers(one, build)} if kind == "regions" else {}
        assert smoothcert.plot(store, kind=kind, data=data, **given).axes
    if len(shape) != 3:
        with pytest.raises(InputError, match=r"for images \(C, H, W\)"):
            smoothcert.plot(store, kind="resolution", data=data)


def test_a_page_draws_lines_for_series_and_bars_for_tables(store, place, shape):
    found = gather_page([str(place / "store")], partial(reopen_data, data=f"npz:{place}/data.npz"))
    page = report_page(found.runs)
    cards = page[page.index('id="gallery"') : page.index('id="images"')]
    lines, bars, pictures = (cards.count(word) for word in ("<polyline", "<rect", "<img"))
    inputs = 2 * store.num_records
    kinds = {1: (0, inputs * shape[0], 0), 2: (inputs * shape[0], 0, 0)}
    assert (lines, bars, pictures) == kinds.get(len(shape), (0, 0, inputs))
    assert ("where pixels lie in [0, 1]" in page, "in the units of the data" in page) == (False, True)


def test_training_denoising_and_their_refusals(place, shape):
    few = {"data": f"npz:{place}/data.npz", "epochs": 1, "sigma": SIGMA, "batch_size": 16}
    card = smoothcert.train("mlp", out=place / "trained", objective="smoothadv", **few, model_option={"hidden": [8]},
                            objective_option={"steps": 1, "m": 1})
    assert (card.input_shape, card.levels) == (shape, None)
    smoothcert.train("direct", out=place / "denoiser", objective="denoise", **few,
                     model_option={"network": "mlp", "width": 8})
    found = smoothcert.certify(place / "trained", denoiser=place / "denoiser", n0=20, max_images=3, **FAST)
    assert found.num_records == 3
    if len(shape) == 3:
        return
    for model, given, words in (("mlp", {"augment": "flip"}, "augment: flip is for images"),
                                ("direct", {"objective": "denoise"}, "network unet of a denoiser takes images"),
                                ("cnn", {}, "cnn takes images")):
        with pytest.raises(InputError, match=words):
            smoothcert.train(model, out=place / "no", **few, **given)
    assert not (place / "no").exists()


@pytest.fixture(scope="module")
def network(shape):
    return nn.Sequential(build(shape, 3), nn.ReLU(), nn.Linear(3, 3)).eval()


@pytest.mark.parametrize("engine", ["eager", "onnxruntime", "openvino", "mnn"])
def test_engines_give_the_votes_of_the_plain_one(engine, shape, network):
    if len(shape) == 1:
        pytest.skip("those of more axes are enough")
    x = draw(shape, 1)[0][0]
    given = {"seed": 0, "bounds": None, "levels": None, "input_shape": shape, "space": "pixels"}
    try:
        found = SmoothedClassifier(network, SIGMA, 3, engine=engine, **given).certify(x, n0=20, n=500)
    except (InputError, MissingExtraError) as error:
        pytest.skip(str(error))
    assert found == SmoothedClassifier(network, SIGMA, 3, engine="plain", **given).certify(x, n0=20, n=500)


def test_files_of_models(place, shape, network):
    if shape == (1,) or len(shape) == 3:
        pytest.skip("a table, series and volumes are enough")
    onnx = pytest.importorskip("onnxscript") and export_network(network, shape, "net")
    (place / "net.onnx").write_bytes(onnx.SerializeToString())
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(network, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},)),
                      place / "net.pt2")
    x = torch.from_numpy(draw(shape, 4)[0])
    for name in ("net.onnx", "net.pt2"):
        loaded = smoothcert.load_model(str(place / name), num_classes=3, input_shape=shape)
        assert loaded.input_shape in (shape, None)  # (N, D) may be of any shape with D values
        torch.testing.assert_close(loaded.model(x), network(x))
        with pytest.raises(ModelError, match="takes inputs of"):
            smoothcert.load_model(str(place / name), num_classes=3, input_shape=(2, 2, 7))


def test_one_input_and_several(shape, network):
    g = SmoothedClassifier(network, SIGMA, 3, seed=0, bounds=None, levels=None, input_shape=shape)
    x = torch.from_numpy(draw(shape, 2)[0])
    both = g.predict(x, n=100)
    assert both == g.predict(list(x), n=100) == [g.predict(one, n=100) for one in x]
    assert g(x).shape == g.soft(x).shape == (2, 3)
    assert g.soft(x[0]).shape == (1, 3)
    for wrong in (x[None], x[..., :0]):
        with pytest.raises(InputError, match=r"inputs must have shape|no values"):
            g.predict(wrong, n=100)
    free = SmoothedClassifier(network, SIGMA, 3, seed=0, bounds=None, levels=None)
    assert free.predict(list(x), n=100) == both
    if len(shape) in (1, 4):
        with pytest.raises(InputError, match="give the shape of one as input_shape"):
            free.predict(x, n=100)


@pytest.mark.parametrize("bounds", [None, (-20.0, 5.0)])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_keep_the_bounds_of_the_data(attack, bounds, shape, network):
    if attack == "deepfool":
        pytest.importorskip("foolbox")
    x = torch.from_numpy(draw(shape, 3)[0]).clamp(max=5.0)
    method = build_attack(attack, eps=2.0, steps=3)
    moved = attack_images(method, network, x, network(x).argmax(dim=1), x.new_zeros(3, 2, *shape), bounds=bounds,
                          generator=torch.Generator().manual_seed(0))
    assert l2_norms(moved - x).max() <= 2
    assert bounds is None or moved.max() <= 5


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_sound_noise_is_of_any_scale(scale):
    """Without levels the grid is the finest that holds the noise, and every input is met exactly on average."""
    noise = build_noise("sound", scale, levels=None, reach=8 * scale)
    x = (scale * np.linspace(-5, 5, 7)).astype(np.float32)
    centre, y = noise.centre(x), np.empty((4000, 7), np.float32)
    assert not centre.off_grid
    assert float(noise.step) < 1e-4 * scale
    noise.fill(y, centre, noise.stream(0, 0, "estimate", centre))
    error = (y.astype(float) - x) / scale
    assert np.abs(error.mean(axis=0)).max() < 4.5 / np.sqrt(len(y))
    assert np.abs(error.std(axis=0) - 1).max() < 0.06
    with pytest.raises(InputError, match="grid noise is for inputs that were quantised"):
        build_noise("grid", scale, levels=None)


def test_normalisation_inside_leaves_sigma_in_the_units_of_the_data():
    """Whitened data take the model behind the layer that undoes it: sigma is then in standard deviations."""
    mean, std = [100.0, -3.0], [50.0, 0.1]
    model = smoothcert.build_model("linear", (2,), 2, mean=mean, std=std).eval()
    raw = SmoothedClassifier(model, 0.5, 2, seed=0, bounds=None, levels=None, input_shape=(2,))
    x = torch.tensor([120.0, -2.9])
    weight = (model.network[1].weight[0] - model.network[1].weight[1]).double() / torch.tensor(std).double()
    assert raw.certify(x, n0=20, n=2000).radius <= abs(float(np.subtract(*model(x[None])[0].tolist()))) / weight.norm()
    undo = Normalise([-m / s for m, s in zip(mean, std, strict=True)], [1 / s for s in std], axes=1)
    white = SmoothedClassifier(nn.Sequential(undo, model).eval(), 0.5, 2, seed=0, bounds=None, levels=None,
                               input_shape=(2,), space="pixels")
    z = (x - torch.tensor(mean)) / torch.tensor(std)
    inner = SmoothedClassifier(model.network, 0.5, 2, seed=0, bounds=None, levels=None, input_shape=(2,),
                               space="pixels")
    assert white.certify(z, n0=20, n=2000).radius == inner.certify(z, n0=20, n=2000).radius
