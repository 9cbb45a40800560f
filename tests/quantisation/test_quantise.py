"""Integer networks: what they are made of, what they answer, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from typer.testing import CliRunner

import smoothcert
from smoothcert.classifiers.card import read_card, write_card
from smoothcert.classifiers.classifier import open_classifier
from smoothcert.classifiers.folder import read_network, write_compact_model
from smoothcert.cli.main import app
from smoothcert.data import load_data
from smoothcert.denoise import build_denoiser
from smoothcert.errors import (
    DataError,
    FileError,
    InputError,
    ModelError,
    QualityWarning,
    SmoothcertError,
)
from smoothcert.noise import build_noise
from smoothcert.quantisation.quantise import draw_noisy

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SIGMA = 0.25


class Residual(nn.Module):
    """A convolution and a residual block with BatchNorm, for 8x8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.first(images)))
        y = torch.relu(y + self.norm2(self.second(y)))
        return self.last(self.pool(y).flatten(1))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network that was trained for a moment on noisy digits."""
    torch.manual_seed(0)
    net, data = Residual(), load_data("digits", "train")
    images, labels = torch.from_numpy(data.batch(np.arange(len(data)))), torch.from_numpy(data.labels)
    steps = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(40):
        steps.zero_grad()
        nn.functional.cross_entropy(net(images + SIGMA * torch.randn_like(images)), labels).backward()
        steps.step()
    return net.eval()


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("quantised") / "int8"
    smoothcert.quantise(network, "digits", sigma=SIGMA, images=64, out=out)
    return out


@pytest.fixture(scope="module")
def file(network, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    torch.onnx.export(network, (torch.zeros(2, 1, 8, 8),), path, dynamo=True, verbose=False,
                      dynamic_shapes=({0: torch.export.Dim("N")},))
    return str(path)


def stored(graph) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def test_weights_have_seven_bits_and_one_scale_a_channel(network, folder):
    """Of each layer: |w| <= 64, some weight of each channel at 64, and w s within half a step of the folded one."""
    graph = onnx.load(folder / "model.onnx").graph
    values, makers = stored(graph), {name: node for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 3
    for layer in layers:
        pair = makers[layer.input[1]]
        weights, scales = values[pair.input[0]], values[pair.input[1]]
        assert weights.dtype == np.int8
        assert scales.shape == weights.shape[:1]
        assert (np.abs(weights.reshape(len(weights), -1)).max(axis=1) == 64).all()
        assert not any(values[pair.input[2]])
    last = values[makers[layers[-1].input[1]].input[0]] * values[makers[layers[-1].input[1]].input[1]][:, None]
    step = values[makers[layers[-1].input[1]].input[1]][:, None]
    assert (np.abs(last - network.last.weight.detach().numpy()) <= 0.501 * step).all()


def test_the_last_layers_output_and_nothing_else_is_in_float(folder):
    graph = onnx.load(folder / "model.onnx").graph
    kinds = [node.op_type for node in graph.node if "Linear" not in node.op_type]
    assert sorted(kinds) == ["Add", "Conv", "Conv", "Gemm", "MaxPool", "Reshape"]  # with BatchNorm and ReLU inside
    assert graph.node[-1].op_type == "Gemm"
    assert read_card(folder).quantised.in_float == {}


def test_the_card_says_what_the_network_was_made_of(network, folder):
    card, data = read_card(folder), load_data("digits", "train")
    made = card.quantised
    indices = np.rint(np.arange(64) * (len(data) - 1) / 63).astype(int)
    assert made.original["sha256"] == open_classifier(network, (1, 8, 8), 10).identity["sha256"]
    assert made.calibration == {"data": "digits", "split": "train", "images": 64, "sha256": data.fingerprint(indices)}
    assert (card.sigma, made.noise["sigma"], made.noise["kind"], made.noise["seed"]) == (SIGMA, SIGMA, "grid", 0)
    assert {"smoothcert", "torch", "onnx", "onnxruntime"} == made.versions.keys()
    assert (card.data["data"], card.input_shape, card.num_classes) == ("digits", (1, 8, 8), 10)
    assert card.best["agreement"] >= 0.95


def test_input_ranges_are_those_of_the_noisy_images(folder):
    """The first scale and zero point come from the least and the largest pixel of the noisy images, and from 0."""
    graph = onnx.load(folder / "model.onnx").graph
    values, first = stored(graph), next(node for node in graph.node if node.op_type == "QuantizeLinear")
    data = load_data("digits", "train")
    noisy = draw_noisy(data, np.rint(np.arange(64) * (len(data) - 1) / 63).astype(int),
                       build_noise("grid", SIGMA, data.levels), 0)
    assert first.input[0] == graph.input[0].name
    assert values[first.input[1]] == pytest.approx((noisy.max() - noisy.min()) / 255, rel=1e-6)
    assert int(values[first.input[2]]) == round(-float(noisy.min()) / float(values[first.input[1]]))


def test_the_same_options_give_the_same_file(network, folder, tmp_path):
    again = smoothcert.quantise(network, "digits", sigma=SIGMA, images=64, out=tmp_path / "again")
    other = smoothcert.quantise(network, "digits", sigma=SIGMA, images=64, seed=1, out=tmp_path / "other")
    assert again == read_card(folder)
    assert other.quantised.sha256 != again.quantised.sha256


def test_calibration_noise_is_that_of_no_certification():
    """Its stage is its own, so that the network does not depend on the noise that certifies it under the same seed."""
    noise, image = build_noise("gaussian", 1.0), np.zeros((1, 2, 2), dtype=np.float32)
    centre = noise.centre(image)

    def draws(stage: str) -> bytes:
        out = np.empty((4, 4), dtype=np.float32)
        noise.fill(out, centre, noise.stream(0, 3, stage, centre))
        return out.tobytes()

    assert len({draws(stage) for stage in ("calibrate", "select", "estimate", "pilot", "predict", "attack")}) == 6


def test_certificates_are_near_those_of_the_original(network, folder):
    design = {"sigma": SIGMA, "n": 1000, "n0": 50, "max_images": 20, "seed": 0}
    ours, original = smoothcert.certify(str(folder), **design), smoothcert.certify(network, "digits", **design)
    assert (ours.column("prediction") == original.column("prediction")).mean() >= 0.9
    assert np.abs(ours.column("radius") - original.column("radius")).mean() < 0.05


def test_folder_and_loose_file_are_one_model_in_any_batch(folder, tmp_path):
    loose = shutil.copy(folder / "model.onnx", tmp_path / "loose.onnx")
    design = {"sigma": SIGMA, "n": 300, "n0": 20, "max_images": 3, "seed": 0}
    one = smoothcert.certify(str(folder), "digits", batch_size=7, **design)
    two = smoothcert.certify(str(loose), "digits", batch_size=64, **design)
    assert one.identity.raw["model"] == two.identity.raw["model"]
    assert np.array_equal(one.counts("estimate"), two.counts("estimate"))


def test_files_are_quantised_with_a_normalisation_in_front(file, network, tmp_path):
    mean, std = (0.5,), (0.25,)
    card = smoothcert.quantise(file, "digits", sigma=SIGMA, images=32, mean=mean, std=std, out=tmp_path / "a")
    same = smoothcert.quantise(network, "digits", sigma=SIGMA, images=32, mean=mean, std=std, out=tmp_path / "b")
    assert card.quantised.in_float == same.quantised.in_float == {"Div": 1, "Sub": 1}
    rows = torch.rand(4, 1, 8, 8)
    a, b = (open_classifier(str(tmp_path / name), (1, 8, 8), 10).model(rows) for name in "ab")
    assert (a - b).abs().max() < 0.1 * b.abs().max()


def test_a_model_of_one_row_at_a_time_stays_one(network, tmp_path):
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images.reshape(1, 1, 8, 8))

    with pytest.warns(match="one row at a time"):
        smoothcert.quantise(Picky().eval(), "digits", sigma=SIGMA, images=32, out=tmp_path / "o")
    model = open_classifier(str(tmp_path / "o"), (1, 8, 8), 10).model
    rows = torch.rand(5, 1, 8, 8)
    assert torch.equal(model(rows), torch.cat([model(row[None]) for row in rows]))


def test_a_denoiser_is_quantised_with_the_model(network, tmp_path):
    torch.manual_seed(0)
    denoiser = build_denoiser("direct", (1, 8, 8), SIGMA)
    card = smoothcert.quantise(network, "digits", sigma=SIGMA, images=32, denoiser=denoiser, out=tmp_path / "o")
    assert card.quantised.denoiser
    assert card.quantised.in_float["Sigmoid"] > 0
    with pytest.raises(InputError, match="includes it: leave --denoiser out"):
        smoothcert.certify(str(tmp_path / "o"), n=100, denoiser=denoiser)
    energy = build_denoiser("energy-residual", (1, 8, 8), SIGMA)
    with pytest.raises(ModelError, match=r"ResidualEnergy takes a gradient \(torch.autograd.grad\)"):
        smoothcert.quantise(network, "digits", sigma=SIGMA, denoiser=energy, out=tmp_path / "e")


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(torch.special.bessel_j0(images).flatten(1))


def moving_mean(images: torch.Tensor) -> torch.Tensor:
    mean = images.mean((1, 2, 3))
    return torch.stack([mean, 1 - mean], dim=1)


SMALL = (np.zeros((5, 1, 8, 8), np.float32), [0, 1, 2, 3, 9])
MANY = (np.zeros((20, 1, 8, 8), np.float32), list(range(12)) + [0] * 8)


@pytest.mark.parametrize(("model", "options", "error", "words"), [
    (None, {"data": None}, InputError, "data: the calibration images are required"),
    (None, {"sigma": None}, InputError, "sigma: the noise level is required"),
    (None, {"sigma": -1.0}, InputError, "sigma: input should be greater than 0"),
    (None, {"sigma": 1e9}, InputError, "too large for grid noise"),
    (None, {"images": 3}, InputError, "images: input should be greater than or equal to 16"),
    (None, {"data": SMALL}, DataError, "has 5 images, and calibration takes at least 16"),
    (None, {"data": (np.zeros((20, 1, 12, 12), np.float32), [0, 9] * 10)}, ModelError, "cannot take float32 images"),
    (None, {"data": MANY}, InputError, "the model gives 10 scores an image, but the labels of the data go up to 11"),
    (Unknown().eval(), {}, ModelError, "no form of its operator prims.bessel_j0"),
    (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).half().eval(), {}, ModelError, "only float32 networks"),
    (moving_mean, {"data": (SMALL[0].repeat(4, 0), [0, 1] * 10)}, ModelError, "no convolution or dense layer"),
    ("scikit-learn", {}, ModelError, "predict_proba, which cannot be exported to ONNX"),
    ("folder", {}, ModelError, "is quantised already"),
    ("loose", {}, ModelError, "model.onnx is quantised already .*QuantizeLinear"),
])
def test_what_cannot_be_quantised_is_refused_and_leaves_nothing(
    model, options, error, words, network, folder, tmp_path
):
    given = {None: network, "folder": str(folder), "loose": str(folder / "model.onnx")}.get(model, model) \
        if model is None or isinstance(model, str) else model
    if model == "scikit-learn":
        data = load_data("digits")
        given = LogisticRegression(tol=10.0).fit(data.batch(np.arange(100)).reshape(100, -1), data.labels[:100])
    asked = {"data": "digits", "sigma": SIGMA, **options}
    with pytest.raises(error, match=words):
        smoothcert.quantise(given, out=tmp_path / "o", **asked)
    assert not any(tmp_path.iterdir())


def test_networks_of_openvino_are_refused(file, tmp_path):
    openvino = pytest.importorskip("openvino")
    openvino.save_model(openvino.Core().read_model(file), tmp_path / "net.xml")
    with pytest.raises(ModelError, match="cannot be exported to ONNX: give the torch network or the ONNX file"):
        smoothcert.quantise(str(tmp_path / "net.xml"), "digits", sigma=SIGMA, out=tmp_path / "o")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_either_runtime_certifies_a_folder(engine, folder):
    pytest.importorskip(engine)
    design = {"sigma": SIGMA, "n": 500, "n0": 50, "max_images": 3, "seed": 0, "engine": engine}
    one, two = (smoothcert.certify(str(folder), batch_size=size, **design) for size in (16, 64))
    assert np.array_equal(one.counts("estimate"), two.counts("estimate"))
    assert one.identity.raw["model"] == two.identity.raw["model"]


def test_a_folder_that_exists_is_left_alone(network, folder, tmp_path):
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    with pytest.raises(FileError, match="exists: choose a new directory"):
        smoothcert.quantise(network, "digits", sigma=SIGMA, out=folder)
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before
    (tmp_path / "empty").mkdir()
    smoothcert.quantise(network, "digits", sigma=SIGMA, images=16, out=tmp_path / "empty")
    assert (tmp_path / "empty" / "model.onnx").is_file()


def test_an_export_that_computes_something_else_is_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr("smoothcert.quantisation.export.fold", lambda found: Residual().eval())
    with pytest.raises(ModelError, match="gives other scores than the model itself"):
        smoothcert.quantise(network, "digits", sigma=SIGMA, images=16, out=tmp_path / "o")
    assert not any(tmp_path.iterdir())


def test_a_poor_integer_network_is_warned_of(network, tmp_path, monkeypatch):
    monkeypatch.setattr("smoothcert.quantisation.quantise.LEAST_AGREEMENT", 1.1)
    with pytest.warns(QualityWarning, match="gives the original's class to only"):
        smoothcert.quantise(network, "digits", sigma=SIGMA, images=16, out=tmp_path / "o")


@pytest.mark.parametrize(("use", "words"), [
    (lambda folder, out: smoothcert.attack(folder, eps=0.5, n=100, max_images=2), "take the attack stein"),
    (lambda folder, out: smoothcert.certify(folder, n=100, weights="last"), "no last weights"),
    (lambda folder, out: smoothcert.certify(folder, n=100, mean=(0.5,)), "leave them out"),
    (lambda folder, out: smoothcert.train(init=folder, data="digits", out=out), "no weights to train or compress"),
    (lambda folder, out: write_compact_model(Path(folder), out), "no weights to train or compress"),
    (lambda folder, out: read_network(folder), "give the float32 network that it was made from, Residual"),
])
def test_what_an_integer_network_cannot_do_says_so(use, words, folder, tmp_path):
    with pytest.raises(SmoothcertError, match=words):
        use(str(folder), tmp_path / "o")
    assert not any(tmp_path.iterdir())


def test_the_other_verbs_take_an_integer_network(folder, tmp_path):
    attacked = smoothcert.attack(str(folder), eps=0.5, n=100, max_images=2, attack="stein", m=2, steps=2)
    assert attacked.complete
    smoothcert.predict(str(folder), n=100, max_images=2, seed=0, out=tmp_path / "p")
    run = CliRunner()
    assert run.invoke(app, ["verify", str(tmp_path / "p"), "--resample", "2", "--model", str(folder)]).exit_code == 0
    told = json.loads(run.invoke(app, ["info", str(folder), "--json"]).stdout)
    assert told["quantised"]["weights"] == 7
    assert run.invoke(app, ["info", str(folder)]).stdout.count("sha256") >= 3


def test_a_changed_file_or_a_missing_one_is_found(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    card = read_card(copy)
    write_card(copy, replace(card, quantised=replace(card.quantised, sha256="0" * 64)))
    with pytest.raises(FileError, match="their SHA-256 differ"):
        smoothcert.certify(str(copy), n=100)
    (copy / "model.onnx").unlink()
    with pytest.raises(FileError, match=r"has no model\.onnx"):
        smoothcert.certify(str(copy), n=100)


def test_cards_of_trained_networks_say_nothing_of_integers(folder, tmp_path):
    write_card(tmp_path, replace(read_card(folder), quantised=None))
    assert "quantised" not in json.loads((tmp_path / "model.json").read_text())


def test_the_command_prints_what_it_made(file, tmp_path):
    said = CliRunner().invoke(app, ["quantise", file, "--data", "digits", "--sigma", "1/4", "--images", "16", "-q",
                                    "-o", str(tmp_path / "o")])
    assert said.exit_code == 0, said.output
    assert "net.onnx in int8, calibrated on 16 images of digits (train) under grid noise, sigma 0.25" in said.stdout
    again = CliRunner().invoke(app, ["quantise", file, "--data", "digits", "--sigma", "1/4", "-o", str(tmp_path / "o")])
    assert again.exit_code == 1
    assert "exists" in again.stderr


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_files_that_others_quantised_are_certified(form, file, tmp_path):
    """By onnxruntime outside the package, from symmetric weights of 7 bits; quantise refuses them."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Once(CalibrationDataReader):
        rows = iter([{onnx.load(file).graph.input[0].name: load_data("digits", "train").batch(np.arange(64))}])

        def get_next(self):
            return next(self.rows, None)

    other = str(tmp_path / "other.onnx")
    quantize_static(file, other, Once(), quant_format=QuantFormat[form], per_channel=True, reduce_range=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8)
    assert smoothcert.certify(other, "digits", sigma=SIGMA, n=200, max_images=3, seed=0).complete
    with pytest.raises(ModelError, match="is quantised already"):
        smoothcert.quantise(other, "digits", sigma=SIGMA, out=tmp_path / "o")
