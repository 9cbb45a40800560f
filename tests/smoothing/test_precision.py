"""What a caller has set in torch or NumPy: the counts are those of a fresh process, and everything is put back."""

import asyncio
import threading
import warnings
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from smoothcert.errors import InputError
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.smoothing import SmoothedClassifier, isolate
from smoothcert.smoothing import precision as precision_module
from smoothcert.smoothing.precision import reduce_precision
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train

SHAPE, K = (3, 8, 8), 5


class MakesTensors(nn.Module):
    """Creates tensors in its forward pass, as normalisations written by hand do."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8 * 36, K)

    def forward(self, x):
        scaled = (x - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) * torch.linspace(0.9, 1.1, 8)
        return self.head(torch.relu(self.features(scaled)).flatten(1))


def networks() -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"makes tensors": MakesTensors(),
                "affine": nn.Sequential(nn.Flatten(), nn.Linear(192, K)),
                "mlp": nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, K))}


NETWORKS = networks()
IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)).mul(255).round() / 255


def results() -> dict[str, Any]:
    found = {}
    for name, network in NETWORKS.items():
        for noise in ("grid", "gaussian"):
            g = SmoothedClassifier(network.eval(), 0.5, K, seed=0, noise=noise)
            found[name, noise] = (np.asarray(g.certify(IMAGE, n0=20, n=400).estimation).tolist(),
                                  np.asarray(g.predict(IMAGE, n=100).counts).tolist())
        soft = g.soft(IMAGE[None], 4)
        found[name] = soft.dtype, soft.device, soft.tolist()
    return found


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    return results()


@contextmanager
def changed(read, write, value):
    before = read()
    write(value)
    try:
        yield
        assert read() == value, "isolation did not put it back"
    finally:
        write(before)


@contextmanager
def strict():
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


def default_device(value):
    return changed(torch.get_default_device, torch.set_default_device, torch.device(value))


def default_dtype(value):
    return changed(torch.get_default_dtype, torch.set_default_dtype, value)


STATES = {
    "autocast bf16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast fp16": lambda: torch.autocast("cpu", torch.float16),
    "default float64": lambda: default_dtype(torch.float64),
    "default bf16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "medium products": lambda: changed(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision,
                                       "medium"),
    "no oneDNN": lambda: changed(lambda: torch.backends.mkldnn.enabled,
                                 lambda value: setattr(torch.backends.mkldnn, "enabled", value), False),
    "threads": lambda: changed(torch.get_num_threads, torch.set_num_threads, 2),
    "inference mode": torch.inference_mode,
    "grad mode": torch.no_grad,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "warnings and NumPy raise": strict,
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("state", STATES)
def test_counts_are_those_of_a_fresh_process(state, expected):
    with STATES[state]():
        found = results()
    if state in ("no oneDNN", "threads"):  # which may change the last bits, and so no count
        found = {name: value for name, value in found.items() if isinstance(name, tuple)}
    assert found == {name: expected[name] for name in found}


def test_in_a_thread_and_in_a_running_event_loop(expected):
    found = []
    thread = threading.Thread(target=lambda: found.append(results()))
    thread.start()
    thread.join()

    async def call():
        return results()

    assert found == [expected]
    assert asyncio.run(call()) == expected


def test_runs_from_python_are_those_of_the_command_line(tmp_path):
    """A model trained, and a store written, under all of it at once: the same bytes as without."""
    def run(folder):
        train(TrainConfig.parse({"data": "digits", "model": "mlp", "sigma": 0.25, "epochs": 1, "batch_size": 256,
                                   "max_images": 600, "seed": 0, "out": folder / "model"}))
        certify(CertifyConfig.parse({"model": str(folder / "model"), "n": 100, "max_images": 8, "seed": 0,
                                       "out": folder / "store"}))
        return [path.read_bytes() for path in (*sorted((folder / "model").glob("*.safetensors")),
                                               *sorted((folder / "store").glob("*.parquet")))]

    plain = run(tmp_path / "plain")
    with torch.autocast("cpu", torch.bfloat16), default_dtype(torch.float64), torch.device("meta"):
        assert run(tmp_path / "changed") == plain
    assert len(plain) >= 2


def test_all_is_put_back_after_an_error():
    with default_dtype(torch.float64), torch.device("meta"), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(ZeroDivisionError), isolate():
            assert torch.empty(1).dtype == torch.float32
            assert torch.empty(1).device.type == "cpu"
            assert not torch.is_autocast_enabled("cpu")
            raise ZeroDivisionError
        assert torch.empty(1).dtype == torch.float64
        assert torch.empty(1).device.type == "meta"
        assert torch.is_autocast_enabled("cpu")


def test_a_default_device_of_the_model_s_kind_stays():
    with torch.device("meta"), isolate(torch.device("meta")):
        assert torch.empty(1).device.type == "meta"


def test_the_gpu_of_the_model_is_the_current_one(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext(told.append(device)))
    with isolate(torch.device("cuda", 1)), isolate(torch.device("cpu")), isolate():
        pass
    assert told == [torch.device("cuda", 1)]


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_a_precision_that_the_card_lacks_is_refused(monkeypatch, precision):
    """On such a card torch computes on in float32, or slowly, and the store would say otherwise."""
    monkeypatch.setattr(precision_module, "device_of", lambda model: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(InputError, match=f"'{precision}' needs a GPU of compute capability 8.0.* Tesla T4 has 7.5"):
        reduce_precision(nn.Linear(2, 2), precision)


@pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "conv"), reason="torch before 2.9 has no such switches")
def test_products_keep_all_their_bits():
    parts = {name: getattr(torch.backends.mkldnn, name) for name in ("matmul", "conv", "rnn")}
    for part in parts.values():
        with changed(lambda part=part: part.fp32_precision, lambda v, part=part: setattr(part, "fp32_precision", v),
                     "bf16"), isolate():
            assert part.fp32_precision == "ieee"
