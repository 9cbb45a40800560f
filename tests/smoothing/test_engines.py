"""Engines: folding is exact, votes are the plain model's or the engine is refused, and auto chooses by time."""

import copy
import json
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from smoothcert.denoise.diffusion import DiffusionDenoiser, noise_schedule
from smoothcert.errors import EngineWarning, InputError, MissingExtraError, UnknownNameError
from smoothcert.machine import BF16_UNITS, instruction_sets
from smoothcert.models import build_model
from smoothcert.smoothing.engines import (
    ENGINES,
    onnx_engines,
    open_engine,
    opening,
    outcomes,
    reduce_precision,
    registry,
    runtimes,
    trial,
)
from smoothcert.smoothing.engines.protocol import Refused
from smoothcert.smoothing.engines.registry import fault
from smoothcert.smoothing.engines.runtimes import PACKAGES
from smoothcert.smoothing.engines.torch_engines import FoldedPass
from smoothcert.smoothing.engines.trial import time_rows, versions_of
from smoothcert.smoothing.folding import fold
from smoothcert.smoothing.gpu import shortcuts
from smoothcert.smoothing.precision import NARROW, tf32
from smoothcert.smoothing.rows import Intake
from smoothcert.smoothing.voters import CLOSE_CALL

CPU = torch.device("cpu")
SHAPES = {"cnn": (1, 28, 28), "lenet": (1, 28, 28), "resnet20": (3, 16, 16)}
pytestmark = pytest.mark.filterwarnings("error::smoothcert.errors.EngineWarning")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(outcomes, "_outcomes", {})
    return tmp_path / "cache" / "smoothcert" / "engines.json"


def perturbed(model):
    """The network with BatchNorm statistics and weights far from the identity."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.2, generator=generator)
    return model.eval()


def patterns(shape, n, seed=5):
    """Images (n, C, H, W) with large patterns, on which even an untrained network gives many classes."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, shape[0], 4, 4, generator=generator)
    return 0.5 + functional.interpolate(2 * coarse, shape[1:]) + 0.25 * torch.randn(n, *shape, generator=generator)


def network(name, **options):
    torch.manual_seed(0)
    model = perturbed(build_model(name, SHAPES[name], 10, **options))
    dense = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        dense.bias -= model(patterns(SHAPES[name], 200, seed=6)).mean(dim=0)
    return model


@pytest.fixture(scope="module")
def networks():
    return {name: network(name) for name in SHAPES}


def small():
    """conv, BatchNorm, ReLU, dense on 1x6x6 images."""
    torch.manual_seed(0)
    return perturbed(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                                   nn.Linear(144, 3)))


SMALL = (1, 6, 6)


def opened(name, model, shape=SMALL, batch=16, **options):
    return open_engine(name, model, shape=shape, batch=batch, device=CPU, **options)


def rows_of(shape, n, seed=5):
    return 0.5 + 0.5 * torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


# Votes

@pytest.mark.parametrize("engine", ["eager", *(pytest.param(name, marks=pytest.mark.slow) for name in PACKAGES)])
@pytest.mark.parametrize("name", SHAPES)
def test_every_engine_gives_the_plain_models_votes(networks, name, engine):
    for package in PACKAGES.get(engine, ()):
        pytest.importorskip(package)
    model = networks[name]
    found = opened(engine, model, SHAPES[name], 64)
    rows = patterns(SHAPES[name], 300)
    with torch.inference_mode():
        expected, got = model(rows), torch.cat([found.run(part) for part in rows.split(50)])
    assert found.name == engine
    assert found.batch == (None if engine == "eager" else 64)
    assert got.dtype == torch.float32
    assert fault(expected.double(), got.double(), "float32") is None
    assert torch.equal(got.argmax(dim=1), expected.argmax(dim=1))
    assert len(expected.argmax(dim=1).unique()) >= 5
    assert not torch.equal(got, expected), "the engine must compute, not pass the plain model on"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++") and not shutil.which("c++"), reason="needs a C++ compiler")
def test_compiled_networks_vote_as_plain_and_compile_once():
    model = small()
    rows = rows_of(SMALL, 40)
    found = opened("compile", model)
    with torch._dynamo.config.patch(error_on_recompile=True):
        first = torch.cat([found.run(part) for part in rows.split(15)])
        with torch.inference_mode():
            second = torch.cat([found.run(part) for part in (rows + 0).split(16)])
            expected = model(rows)
    assert found.name == "compile"
    assert torch.equal(first, second)
    assert fault(expected.double(), first.double(), "float32") is None


@pytest.mark.parametrize("wrong_from", [33, 500])
def test_on_a_gpu_the_check_is_made_at_the_service_batch(monkeypatch, wrong_from):
    """An algorithm that a large batch alone is given, and a plain model that judges in batches of 32."""
    sizes = []
    model = small()
    forward = model.forward

    def counted(rows):
        sizes.append(len(rows))
        return forward(rows)

    def builder(model, shape, batch, device, precision):
        return lambda rows: forward(rows) + (len(rows) >= wrong_from) * torch.arange(3.0)

    monkeypatch.setitem(ENGINES, "eager", builder)
    monkeypatch.setattr(model, "forward", counted)
    monkeypatch.setattr(registry, "referee_rows", lambda device: 32)
    with pytest.warns(EngineWarning, match=r"'eager' is not used: \d+ of 4096 votes .*; falling back to 'plain'"):
        assert opened("eager", model, batch=4096).name == "plain"
    assert set(sizes[1:]) == {32}
    monkeypatch.setitem(ENGINES, "eager", lambda *_: forward)
    assert opened("eager", model, batch=4096).name == "eager"


def test_onnxruntime_that_falls_back_to_the_cpu_is_refused(monkeypatch):
    """A stand-in for its release for GPUs where CUDA's libraries do not load: no error, but another provider."""
    def start(content, options, providers):
        return SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])

    runtime = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"], InferenceSession=start,
        SessionOptions=SimpleNamespace, ExecutionMode=SimpleNamespace(ORT_SEQUENTIAL=0),
        GraphOptimizationLevel=SimpleNamespace(ORT_ENABLE_ALL=0))
    monkeypatch.setattr(onnx_engines, "import_runtime", lambda name: runtime)
    monkeypatch.setattr(onnx_engines, "need_exporter", lambda engine: None)
    monkeypatch.setattr(onnx_engines, "export", lambda *_: b"")
    with pytest.raises(Refused, match="CUDA provider does not start here"):
        onnx_engines.onnxruntime(small(), SMALL, 4, torch.device("cuda"), "float32")


def test_a_compiler_that_fails_is_refused_with_a_warning(monkeypatch):
    def broken(*_, **__):
        def run(rows):
            raise RuntimeError("no compiler\nlong story")
        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(EngineWarning, match=r"'compile' is not used.*no compiler\); falling back to 'eager'"):
        assert opened("compile", small()).name == "eager"


@pytest.mark.parametrize("engine", PACKAGES)
def test_rows_do_not_depend_on_how_many_are_run_at_once(engine, networks):
    pytest.importorskip(PACKAGES[engine][-1])
    run = opened(engine, networks["lenet"], SHAPES["lenet"], 64).run
    rows = rows_of(SHAPES["lenet"], 64)
    whole = run(rows)
    run(torch.full_like(rows, 1e6))  # what an earlier batch leaves behind
    for n in (1, 7, 63):
        assert torch.equal(run(rows[:n]), whole[:n])
    strided = rows.to(memory_format=torch.channels_last).double()
    assert torch.equal(run(strided), whole)
    assert torch.equal(run(rows.clone().requires_grad_()), whole)
    assert torch.equal(whole, run(rows)), "a result must outlive the next call"


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("engine", ["plain", "eager", "auto"])
def test_latent_rows_of_any_shape_can_be_run(engine, precision):
    torch.manual_seed(0)
    head = nn.Sequential(nn.ReLU(), nn.Linear(5, 3))
    found = opened(engine, head, (5,), precision=precision)
    rows = rows_of((5,), 16)
    before = rows.clone()
    torch.testing.assert_close(found.run(rows), head(rows).detach(), atol=0.05 if precision == "bf16" else 1e-6, rtol=0)
    assert torch.equal(rows, before)


# Folding

class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return functional.relu(y + x)


class Branching(Residual):
    """Control flow that no tracer can follow."""

    def forward(self, x):
        return super().forward(x) if float(x.sum()) < float("inf") else x


def chain(kind):
    torch.manual_seed(0)
    return {
        "conv1d": lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)),
        "conv2d": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        "conv3d": lambda: nn.Sequential(nn.Conv3d(3, 4, 2), nn.BatchNorm3d(4, affine=False)),
        "grouped": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False), nn.BatchNorm2d(6, eps=0.1)),
        "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False), nn.BatchNorm1d(4)),
        "block": lambda: nn.Sequential(Residual(), Residual()),
        "opaque": lambda: nn.Sequential(Branching(), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)),
    }[kind]()


def double_rows(kind):
    return rows_of({"conv1d": (3, 8), "conv3d": (3, 4, 4, 4)}.get(kind, (3, 8, 8)), 4).double()


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize(("kind", "left"), [("conv1d", 0), ("conv2d", 0), ("conv3d", 0), ("grouped", 0), ("dense", 0),
                                            ("block", 0), ("opaque", 1)])
def test_folding_is_exact(kind, left):
    model = perturbed(chain(kind).double())
    folded, rows = fold(model), double_rows(kind)
    assert len(norms(model)) > len(norms(folded)) == left
    torch.testing.assert_close(folded(rows), model(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["cnn", "resnet20"])
def test_folding_leaves_no_batchnorm_in_known_networks(name):
    model = network(name, mean=[0.4] * SHAPES[name][0], std=[0.3] * SHAPES[name][0]).double()
    rows = rows_of(SHAPES[name], 3).double()
    folded = fold(model)
    assert norms(model)
    assert not norms(folded)
    torch.testing.assert_close(folded(rows), model(rows), rtol=1e-11, atol=1e-11)


def added(value, relu):
    alias = value.view(value.shape)
    alias += relu(value)
    return value


def with_data(value, data):
    value.data = data
    return value


def unfoldable(kind):
    """Networks in which a BatchNorm that follows a convolution, or looks so, must stay, and where ReLU must copy."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
    doubled = 2 * conv.weight.detach().double()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.relu = conv, norm, nn.ReLU()

        def forward(self, x):
            y = self.conv(x)
            return {"used twice": lambda: self.norm(y) + y, "called twice": lambda: self.norm(self.conv(y)),
                    "relu between": lambda: self.norm(functional.relu(y)),
                    "added to an alias": lambda: added(self.norm(y), self.relu),
                    "added to a view": lambda: added(y, self.relu),
                    "data set": lambda: with_data(self.norm(y), y),
                    "weights of a call": lambda: self.norm(functional_call(self.conv, {"weight": doubled}, (x,))),
                    "relu of a view": lambda: functional.relu(y.flatten(1)) + y.flatten(1),
                    "relu of a shared value": lambda: functional.relu(y) + y,
                    "relu of the input": lambda: functional.relu(x) + self.conv(x)}.get(kind, lambda: self.norm(y))()

    if kind == "forward of a layer":
        forward = norm.forward
        norm.forward = lambda input: 2 * forward(input)
    if kind == "forward of the network":
        network = Net()
        network.forward = lambda x: 2 * network.norm(network.conv(x))
        return network
    if kind == "hook of the network":
        network = Net()
        network.register_forward_hook(lambda module, inputs, output: output * 2)
        return network
    if kind == "hook":
        conv.register_forward_hook(lambda module, inputs, output: output * 2)
    if kind == "subclass":
        class Doubling(nn.BatchNorm2d):
            def forward(self, input):
                return 2 * super().forward(input)

        norm = Doubling(3)
    if kind == "no statistics":
        norm = nn.BatchNorm2d(3, track_running_stats=False)
    return Net()


@pytest.mark.parametrize("kind", [
    "used twice", "called twice", "relu between", "relu of a view", "relu of a shared value", "relu of the input",
    "hook", "subclass", "no statistics", "forward of a layer", "forward of the network", "hook of the network",
    "added to an alias", "added to a view", "data set", "weights of a call",
])
def test_what_cannot_be_folded_stays_as_it_is(kind):
    model = unfoldable(kind).double()
    model = model.eval() if kind == "no statistics" else perturbed(model)
    rows = rows_of((3, 8, 8), 4).double()
    before = rows.clone()
    torch.testing.assert_close(fold(model)(rows), model(rows), rtol=1e-12, atol=1e-12)
    assert torch.equal(rows, before)


def test_the_users_network_is_left_as_it_was(networks):
    model = networks["cnn"]
    model[2].train()
    before = copy.deepcopy(model)
    tensors = {name: (tensor, tensor.data_ptr(), tensor.stride()) for name, tensor in model.state_dict().items()}
    for engine in ("plain", "eager", *PACKAGES):
        if versions_of(engine) is not None:
            assert opened(engine, model, SHAPES["cnn"], 64).name == engine
    for name, tensor in model.state_dict().items():
        assert (tensor.data_ptr(), tensor.stride()) == tensors[name][1:]
        assert torch.equal(tensor, before.state_dict()[name])
    assert [type(module) for module in model.modules()] == [type(module) for module in before.modules()]
    assert [module.training for module in model.modules()] == [module.training for module in before.modules()]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model(rows_of(SHAPES["cnn"], 2)).requires_grad
    model.eval()


# The check

def test_settled_votes_are_equal_in_engines_within_the_bound():
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(20_000, 4, generator=generator).double()
    plain[:, 1] = plain[:, 0] + CLOSE_CALL * torch.randn(20_000, generator=generator).double()  # nearly all are close
    scale = plain.abs().amax(dim=1)
    for seed in range(3):
        signs = torch.randint(0, 2, plain.shape, generator=generator.manual_seed(seed)) * 2.0 - 1
        logits = plain + signs * (CLOSE_CALL / 4 * scale).unsqueeze(1)
        first, second = logits.topk(2, dim=1).values.unbind(dim=1)
        close = first - second <= CLOSE_CALL * logits.abs().amax(dim=1)
        votes = torch.where(close, plain.argmax(dim=1), logits.argmax(dim=1))
        assert torch.equal(votes, plain.argmax(dim=1))
        assert not torch.equal(logits.argmax(dim=1), plain.argmax(dim=1))
        assert 0 < close.sum() < len(close)


def test_faults_are_told_apart():
    plain = torch.tensor([[1.0, 2.0, -4.0], [3.0, 0.0, 1.0], [float("nan")] * 3, [1.0, float("-inf"), 2.0]]).double()
    assert fault(plain, plain.clone(), "float32") is None
    near = plain.clone()
    near[0, 0] += 0.9 * CLOSE_CALL / 4 * 4
    assert fault(plain, near, "float32") is None
    near[0, 0] += 0.2 * CLOSE_CALL / 4 * 4
    assert "but a logit does, by 2.7e-05 of its scale (2.5e-05" in str(fault(plain, near, "float32"))
    assert fault(plain, near, "bf16") is None
    flipped = plain.clone()
    flipped[1] = plain[1].flip(0)
    flipped[0, 1] = 0.0
    assert "2 of 4 votes" in str(fault(plain, flipped, "float32"))
    assert "3 of 4" not in str(fault(plain, flipped, "bf16"))
    small = torch.tensor([[1.0, -1.0], [1.0, -1.0], [1e-6, -1e-6]]).double()
    assert fault(small, small + 2e-5, "float32") is None
    assert fault(small, -small, "float32") is not None
    assert "2 of 3 votes" in str(fault(small, -small, "float32")), "the third is a close call on the scale of the rest"
    lost = plain.clone()
    lost[2] = 0.0
    assert fault(plain, lost, "float32") is not None
    assert "shape (4, 2)" in str(fault(plain, plain[:, :2], "float32"))
    close = torch.tensor([[1.0, 1.0 - 2.0**-6]]).double()
    assert fault(close, close.flip(1), "bf16") is None
    assert "1 of 1 votes" in str(fault(close, close.flip(1), "tf32"))


def wrong_engine(change):
    def build(model, shape, batch, device, precision):
        return lambda rows: change(model(rows))
    return build


def test_an_engine_with_other_votes_is_refused_and_falls_back(monkeypatch):
    model = small()
    monkeypatch.setitem(ENGINES, "wrong", wrong_engine(lambda logits: -logits))
    with pytest.warns(EngineWarning, match=r"'wrong' is not used: 500 of 500 votes .*falling back to 'eager'") as seen:
        assert opened("wrong", model).name == "eager"
    assert len(seen) == 1
    monkeypatch.setitem(ENGINES, "eager", wrong_engine(lambda logits: logits + 1))
    with pytest.warns(EngineWarning) as seen:
        found = opened("wrong", model)
    assert [str(warning.message).rpartition(" ")[2] for warning in seen] == ["'eager'", "'plain'"]
    rows = rows_of(SMALL, 4)
    assert found.name == "plain"
    assert torch.equal(found.run(rows), model(rows))


@pytest.mark.parametrize(("error", "name"), [(1e-6, "wrong"), (1e-4, "eager")])
def test_an_engine_must_be_exact_even_where_no_vote_differs(monkeypatch, error, name):
    monkeypatch.setitem(ENGINES, "wrong", wrong_engine(lambda logits: logits * (1 + error)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert opened("wrong", small()).name == name
    assert [("no vote" in str(warning.message)) for warning in seen] == [True] * (name == "eager")


@pytest.mark.parametrize(("fails", "text"), [
    (lambda logits: logits[:, :2], r"shape \(500, 2\)"),
    (lambda logits: 1 / 0, "ZeroDivisionError: division by zero"),
])
def test_an_engine_that_fails_is_refused(monkeypatch, fails, text):
    monkeypatch.setitem(ENGINES, "wrong", wrong_engine(fails))
    with pytest.warns(EngineWarning, match=text):
        assert opened("wrong", small()).name == "eager"


class Uncopyable(nn.Module):
    def forward(self, rows):
        return rows.flatten(1)[:, :3]

    def __deepcopy__(self, memo):
        raise TypeError("it holds a lock")


@pytest.mark.parametrize(("model", "text"), [
    (lambda rows: rows.flatten(1)[:, :3], "no torch module"),
    (nn.Flatten(0), r"does not return logits"), (nn.Linear(7, 3), "cannot run: .*RuntimeError"),
])
def test_some_models_only_run_plain(model, text):
    with pytest.warns(EngineWarning, match=text):
        assert opened("eager", model).name == "plain"
    assert opened("auto", model, samples=10**9).name == "plain"


def test_what_cannot_be_copied_runs_plain_and_says_so():
    for name in ("eager", "auto"):
        with pytest.warns(EngineWarning, match=r"'eager' is not used: .*copied \(TypeError: it holds a lock\)"):
            assert opened(name, Uncopyable(), samples=10**9).name == "plain"


def test_names_are_checked_and_missing_packages_named(monkeypatch):
    with pytest.raises(UnknownNameError, match=r"unknown engine 'egaer' \(did you mean \"eager\"\?\)"):
        opened("egaer", small())
    with pytest.raises(UnknownNameError, match="unknown precision 'fp8'"):
        opened("eager", small(), precision="fp8")
    with pytest.raises(InputError, match="batch must be at least 1"):
        opened("eager", small(), batch=0)
    for engine, package, extra in (("openvino", "openvino", "openvino"), ("onnxruntime", "onnxscript", "onnx"),
                                   ("mnn", "MNN", "mnn")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(MissingExtraError, match=rf"needs the package {package}, .*smoothcert\[{extra}\]"):
                opened(engine, small())
            assert versions_of(engine) is None


# Precision

@pytest.mark.parametrize(("precision", "least", "most"), [("bf16", 1e-4, 0.1), ("fp16", 1e-5, 0.01)])
def test_narrow_types_are_other_classifiers_that_eager_runs(precision, least, most):
    model, rows = small(), rows_of(SMALL, 200)
    classifier = reduce_precision(model, precision)
    found = opened("eager", model, precision=precision)
    with torch.inference_mode():
        full, low, fast = model(rows), classifier(rows), found.run(rows)
    scale = full.abs().amax(dim=1, keepdim=True)
    assert found.name == "eager"
    assert low.dtype == fast.dtype == torch.float32
    assert least < ((low - full).abs() / scale).max() < most
    assert fault(low.double(), fast.double(), precision) is None
    assert next(model.parameters()).dtype == torch.float32
    assert reduce_precision(model, "float32") is model or torch.cuda.is_available()


def test_what_is_folded_is_rounded_once():
    """Statistics that bfloat16 cannot hold are folded in as the network has them."""
    layers = perturbed(nn.Sequential(nn.Conv2d(1, 64, 1, bias=False), nn.BatchNorm2d(64), nn.Flatten()))

    def convolution(network):
        return next(part for part in network.modules() if isinstance(part, nn.Conv2d))

    narrow, rounded = convolution(reduce_precision(layers, "bf16")), convolution(fold(copy.deepcopy(layers).bfloat16()))
    for name, value in convolution(fold(layers)).named_parameters():
        assert torch.equal(narrow.get_parameter(name), value.bfloat16())
        assert not torch.equal(narrow.get_parameter(name), rounded.get_parameter(name))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_table_of_float64_keeps_its_digits(precision):
    """A diffusion model reads its timestep off one: rounded to bfloat16 it is off by one or two."""
    denoiser = DiffusionDenoiser(nn.Identity(), noise_schedule({}))
    narrow = reduce_precision(nn.Sequential(denoiser, nn.Conv2d(1, 2, 1)), precision).network
    kept = next(part for part in narrow.modules() if isinstance(part, DiffusionDenoiser))
    levels = [0.12, 0.25, 0.5, 1.0]
    assert [kept.timestep(level) for level in levels] == [denoiser.timestep(level) for level in levels]
    assert reduce_precision(nn.Linear(3, 2).double(), precision).network.weight.dtype == NARROW[precision]


def test_fp16_refuses_what_float16_cannot_hold():
    model = small()
    with torch.no_grad():
        model[-1].weight.mul_(1e6)
    for engine in ("plain", "eager", "auto"):
        with pytest.raises(InputError, match=r"'fp16'.*65,504: use precision 'bf16'"):
            opened(engine, model, precision="fp16")


def test_precisions_are_refused_where_they_do_not_exist():
    with pytest.raises(InputError, match="'tf32' needs a torch module on a CUDA device, got a Sequential on cpu"):
        reduce_precision(small(), "tf32")
    with pytest.raises(InputError, match="'tf32' needs"):
        opened("auto", small(), precision="tf32")
    with pytest.raises(InputError, match="'bf16' needs a torch module"):
        reduce_precision(lambda rows: rows, "bf16")
    with pytest.raises(InputError, match=r"'onnxruntime' runs float32 only, .*'bf16': use engine 'openvino'"):
        opened("onnxruntime", small(), precision="bf16")


@pytest.mark.slow
def test_openvino_runs_modules_in_bf16_where_there_are_units(monkeypatch):
    pytest.importorskip("openvino")
    units = BF16_UNITS & instruction_sets(onednn=True)
    model, rows = small(), rows_of(SMALL, 40)
    if units:
        found = opened("openvino", model, precision="bf16", batch=7)
        assert (found.name, found.runtime.instructions.split()[1:]) == ("openvino", sorted(units))
        one, other = (torch.cat([found.run(part) for part in rows.split(size)]) for size in (40, 3))
        assert torch.equal(one, other)
        assert not torch.equal(one, model(rows))
        assert fault(model(rows).double(), one.double(), "bf16") is None
    monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False: frozenset({"avx2"}))
    with pytest.warns(EngineWarning, match=r"no units for bfloat16 \(.*\); falling back to 'eager'"):
        assert opened("openvino", model, precision="bf16").runtime is None


def switches():
    found = []
    for read in (lambda: torch.backends.cudnn.allow_tf32, lambda: torch.backends.cuda.matmul.allow_tf32,
                 torch.get_float32_matmul_precision, lambda: torch.backends.cudnn.conv.fp32_precision,
                 lambda: torch.backends.cudnn.rnn.fp32_precision, lambda: torch.backends.cuda.matmul.fp32_precision,
                 lambda: torch.backends.mkldnn.matmul.fp32_precision):
        try:
            found.append(read())
        except (RuntimeError, AttributeError) as error:  # mixed switches; torch below 2.9
            found.append(type(error))
    return found


@pytest.mark.parametrize("beforehand", ["as torch has it", "medium", "off", "mixed"])
def test_tf32_switches_hold_inside_and_are_put_back(beforehand):
    cudnn, finer = torch.backends.cudnn, hasattr(torch.backends.cudnn, "conv")
    initial = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    if beforehand == "mixed" and not finer:
        pytest.skip("needs torch 2.9")
    try:
        if beforehand == "medium":
            torch.set_float32_matmul_precision("medium")
        if beforehand == "off":
            cudnn.allow_tf32 = False
        if beforehand == "mixed":
            cudnn.conv.fp32_precision = "ieee"
        before = switches()
        for allowed in (True, False):
            with pytest.raises(KeyError), tf32(allowed):
                if finer:
                    assert switches()[3:6] == ["tf32" if allowed else "ieee"] * 3
                if beforehand != "mixed":
                    assert switches()[:2] == [allowed, allowed]
                raise KeyError
            assert switches() == before
    finally:
        if beforehand == "mixed":
            cudnn.conv.fp32_precision = "tf32"
        cudnn.allow_tf32 = initial[0]
        torch.set_float32_matmul_precision(initial[1])


# Auto

@pytest.fixture
def three(monkeypatch):
    """Eager and two more engines, of given speeds; what was timed is listed."""
    times, timed = {"plain": 1.0, "eager": 1.0, "fast": 0.25, "middling": 0.5, "compile": 9.0}, []

    def seconds(runs, rows, rounds=5):
        timed.append(sorted(runs))
        return {name: times[name] for name in runs}

    for name in list(ENGINES):
        if name not in ("plain", "eager", "compile"):
            monkeypatch.delitem(ENGINES, name)
    for name in ("fast", "middling", "compile"):
        monkeypatch.setitem(ENGINES, name, ENGINES["eager"])
    monkeypatch.setattr(trial, "time_rows", seconds)
    monkeypatch.setitem(trial._STARTS, "compile", (10.0**4, 0.0, 0.0))
    return times, timed


def test_auto_tries_what_starts_in_two_percent_of_the_run(three, monkeypatch):
    """A row takes a second: of 15,000 s there are 300, of which the check takes 200, and a start half of the rest."""
    _, timed = three
    monkeypatch.setitem(trial._STARTS, "middling", (40.0, 0.0, 0.0))
    monkeypatch.setitem(trial._STARTS, "fast", (60.0, 0.0, 0.0))
    monkeypatch.setitem(trial._STARTS, "compile", (2000.0, 0.0, 0.0))
    for samples, name, candidates in ((None, "plain", None), (5000, "plain", None), (10_100, "eager", []),
                                      (15_000, "middling", ["eager", "middling"]),
                                      (18_000, "fast", ["eager", "fast", "middling"]),
                                      (300_000, "fast", ["compile", "eager", "fast", "middling"])):
        timed.clear()
        found = opened("auto", small(), samples=samples)
        assert found.name == name
        assert found.batch == (None if name in ("plain", "eager") else 16)
        tried = [] if candidates is None else [["eager"], *([candidates] if candidates else [])]
        assert timed == [["plain"], *tried]


def test_auto_stops_where_a_start_took_what_there_was(three, monkeypatch):
    """The first of two engines that may be tried takes longer than was guessed, and the second is left out."""
    _, timed = three
    now, build = [0.0], ENGINES["eager"]

    def slow(*given):
        now[0] += 10.0**6
        return build(*given)

    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setitem(ENGINES, "middling", slow)
    monkeypatch.setitem(trial._STARTS, "middling", (1.0, 0.0, 0.0))
    monkeypatch.setitem(trial._STARTS, "fast", (2.0, 0.0, 0.0))
    assert opened("auto", small(), samples=100_000).name == "middling"
    assert timed[-1] == ["eager", "middling"]


@pytest.mark.parametrize(("samples", "rows"), [(20_000, 100), (60_000, 300), (10**7, 500)])
def test_the_check_takes_a_200th_of_the_samples_at_most(three, monkeypatch, samples, rows):
    seen = []
    monkeypatch.setattr(opening, "fault", lambda expected, logits, precision: seen.append(len(logits)))
    opened("auto", small(), samples=samples)
    assert seen == [rows]


def test_a_trial_is_remembered_for_equal_circumstances_only(three, cache, monkeypatch):
    times, timed = three

    def trials(model=None, **options):
        timed.clear()
        assert opened("auto", model or small(), samples=10**5, **options).name == "fast"
        return len(timed) - 2

    assert trials() == 1
    assert trials() == 0
    monkeypatch.setattr(outcomes, "_outcomes", {})
    assert trials() == 0, "the file must be read by another process"
    (entry,) = json.loads(cache.read_text()).values()
    assert entry["seconds"] == {"fast": 0.25, "middling": 0.5, "eager": 1.0}
    other = small()
    other[0].weight.data[0, 0, 0, 0] += 1
    assert trials(other) == 1
    assert trials(batch=17) == 1
    assert trials(precision="bf16") == 1
    monkeypatch.setattr(outcomes, "_outcomes", {})
    cache.write_text("{broken")
    assert trials() == 1
    assert trials() == 0
    assert len(json.loads(cache.read_text())) == 1
    times["fast"] = 2.0
    monkeypatch.setattr(outcomes, "_outcomes", {})
    cache.unlink()
    assert opened("auto", small(), samples=10**5).name == "middling"


@pytest.mark.parametrize("entry", [
    ["fast"], {"fast": 1}, "fast", 3, None, {"seconds": {}, "lacked": {}}, {"seconds": {"fast": "1"}, "lacked": {}},
    {"seconds": {"fast": -1.0}, "lacked": {}}, {"seconds": {"fast": 0.1}, "lacked": {"eager": 3}},
    {"seconds": {"elsewhere": 0.1}, "lacked": {}}])
def test_an_entry_of_another_shape_leads_to_another_trial(three, cache, monkeypatch, entry):
    _, timed = three
    opened("auto", small(), samples=10**5)
    key, = json.loads(cache.read_text())
    cache.write_text(json.dumps({key: entry}))
    monkeypatch.setattr(outcomes, "_outcomes", {})
    timed.clear()
    assert opened("auto", small(), samples=10**5).name == "fast"
    assert len(timed) == 3


def test_a_cache_that_cannot_be_written_is_no_error(three, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert opened("auto", small(), samples=10**5).name == "fast"
    assert opened("auto", small(), samples=10**5).name == "fast"


def test_auto_takes_the_next_where_the_fastest_votes_otherwise(three, monkeypatch):
    monkeypatch.setitem(ENGINES, "fast", wrong_engine(lambda logits: -logits))
    for _ in range(2):  # the second from the cache
        with pytest.warns(EngineWarning, match=r"'fast' is not used: 500 of 500 votes.*falling back to 'middling'"):
            assert opened("auto", small(), samples=10**5).name == "middling"


def test_auto_does_without_what_cannot_start(three, monkeypatch):
    monkeypatch.setitem(ENGINES, "fast", wrong_engine(lambda logits: 1 / 0))
    assert opened("auto", small(), samples=10**5).name == "middling"


@pytest.fixture
def chosen(three, monkeypatch):
    """Opens small() by auto: the choice, and the lines of the log. An engine is absent, one has other votes."""
    monkeypatch.setitem(PACKAGES, "middling", ("onnx", "no_such_package", "openvino"))
    monkeypatch.setitem(ENGINES, "fast", wrong_engine(lambda logits: -logits))
    monkeypatch.setitem(ENGINES, "spare", ENGINES["eager"])
    monkeypatch.setitem(ENGINES, "failing", wrong_engine(lambda logits: 1 / 0))
    three[0].update(spare=0.5, failing=1.0)

    def choose(caplog, **options):
        caplog.clear()
        with caplog.at_level("INFO", "smoothcert"), warnings.catch_warnings():
            warnings.simplefilter("ignore", EngineWarning)
            choice = opened("auto", small(), **options).choice
        return choice, [line for line in caplog.messages if line.startswith("engine")]

    return choose


def test_a_choice_says_what_each_engine_lacked(chosen, caplog):
    for _ in range(2):  # the second from the cache
        choice, lines = chosen(caplog, samples=10**5)
        assert choice.taken == "spare"
        assert choice.rates == {"eager": 1.0, "fast": 4.0, "spare": 2.0}
        assert choice.refused.keys() == {"eager", "fast", "middling", "failing", "compile"}
        assert choice.refused["eager"] == "slower"
        assert "500 of 500 votes" in choice.refused["fast"]
        assert choice.refused["middling"] == "not installed (pip install 'smoothcert[openvino]')"
        assert "ZeroDivisionError" in choice.refused["failing"]
        assert choice.refused["compile"] == "its start of about 10000 s does not fit into 2% of the run"
        assert lines[0] == "engine spare (2 samples/s in the trial)"
        assert "engine eager is not used (1 samples/s in the trial): slower" in lines
        told = choice.provenance()["engine"]
        assert told["samples_per_second"] == choice.rates
        assert told["refused"] == choice.refused


def test_a_choice_without_a_trial_says_why(chosen, caplog):
    choice, lines = chosen(caplog, samples=5000)
    assert lines == ["engine plain: to start another engine would take more than 2% of the run"]
    assert choice.provenance()["engine"]["taken"] == "plain"
    assert opened("eager", small()).choice is None
    assert opened("plain", small()).choice is None


def test_a_trial_in_bfloat16_says_who_has_it(three, caplog, monkeypatch):
    monkeypatch.setattr(runtimes, "instruction_sets", lambda onednn=False: frozenset({"avx2"}))
    for name in ("onnxruntime", "openvino"):
        pytest.importorskip(name)
        monkeypatch.setitem(ENGINES, name, getattr(onnx_engines, name))
    choice = opened("auto", small(), samples=10**5, precision="bf16").choice
    assert choice.refused["onnxruntime"] == "it does not compute in bf16"
    assert "no units for bfloat16" in choice.refused["openvino"]


def test_a_trial_measures_seconds_a_row_of_each_engine():
    def busy(rounds):
        def run(rows):
            for _ in range(rounds):
                torch.linalg.inv(torch.eye(60))
            return rows
        return run

    rows = rows_of(SMALL, 4)
    times = time_rows({"slow": busy(100), "quick": busy(1)}, rows)
    assert 0 < 10 * times["quick"] < times["slow"]


def test_openvino_is_imported_without_its_reporter():
    pytest.importorskip("openvino")
    code = ("import sys; from smoothcert.smoothing.engines import runtimes; "
            "runtimes.import_packages('openvino'); "
            "from openvino.tools.ovc.telemetry_utils import tm; print(tm.__name__, "
            "'openvino_telemetry' in sys.modules)")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["openvino.tools.ovc.telemetry_stub", "False"]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_folded_network_computes_in_its_layout_from_the_first_layer_on(channels):
    """Also with one channel, whose weights lie in memory alike in both layouts."""
    model = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    last = ENGINES["eager"](model, (channels, 8, 8), 2, CPU, "float32")
    for run, layout in ((last, torch.channels_last), (last.channels_first(), torch.contiguous_format)):
        seen = []
        next(iter(run._network.children())).register_forward_hook(lambda *given, seen=seen: seen.append(given[2]))
        run(torch.zeros(2, channels, 8, 8))
        assert seen[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("last", "first", "precision", "channels_last"), [
    (2.0, 1.0, "float32", False), (1.0, 2.0, "float32", True), (2.0, 1.0, "fp16", True), (2.0, None, "float32", True),
], ids=["faster", "slower", "in tensor cores", "fails"])
def test_a_gpu_takes_the_faster_layout(networks, monkeypatch, last, first, precision, channels_last):
    """The clock runs by the layout of the rows that the network is given."""
    clock, shape = [0.0], SHAPES["lenet"]
    run = ENGINES["eager"](networks["lenet"], shape, 16, CPU, precision)

    def compute(self, rows):
        if not self.intake.channels_last and first is None:
            raise RuntimeError("no kernel")
        clock[0] += last if self.intake.channels_last else first
        return called(self, rows)

    called = FoldedPass.__call__
    monkeypatch.setattr(FoldedPass, "__call__", compute)
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    rows = rows_of(shape, 16)
    setting = SimpleNamespace(device=SimpleNamespace(type="cuda"), precision=precision, shape=shape, batch=16,
                              inputs=lambda n: iter([rows[:n]]))
    found = trial.choose_layout(setting, run)
    assert found.intake == Intake(channels_last, NARROW.get(precision, torch.float32))
    assert torch.allclose(called(found, rows), called(run, rows), atol=1e-5)
    with shortcuts(layout_trial=False):
        assert trial.choose_layout(setting, run) is run
    assert trial.choose_layout(setting, print) is print, "another engine's"
