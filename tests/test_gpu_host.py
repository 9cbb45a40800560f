"""Runs, training and checks around a GPU, on a real one: the companions of the tests with stand-ins.

Each of those is named in the docstring here. All are skipped where there are too few GPUs.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nets import write_nets
from smoothcert import SmoothedClassifier
from smoothcert.denoise import DenoisedClassifier, DiffusionDenoiser
from smoothcert.denoise.diffusion import noise_schedule
from smoothcert.errors import InputError
from smoothcert.machine import find_device, list_cards
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.smoothing import isolate
from smoothcert.smoothing.precision import reduce_precision, repeatable
from smoothcert.store.store import read_store
from smoothcert.training.distributed import join_processes, leave_processes
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train_share
from smoothcert.verify.options import VerifyConfig
from smoothcert.verify.verify import verify

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")

GPU = torch.device("cuda", 0)


@pytest.fixture
def net(tmp_path) -> str:
    write_nets(tmp_path, 2, "")
    return f"{tmp_path}/nets.py:Means"


def run(net: str, out: Path, **more):
    return certify(CertifyConfig.parse({"model": net, "data": "digits", "sigma": 0.25, "seed": 1, "n": 1000,
                                        "max_images": 60, "device": "cuda", "out": out, **more}))


def shards(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.parquet"))]


@two_gpus
def test_two_gpus_write_what_one_writes(net, tmp_path):
    """runs/test_workers.py: even shares, a GPU each, and the driver's memory."""
    run(net, tmp_path / "one")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    run(net, tmp_path / "two", workers=2)
    assert shards(tmp_path / "one") == shards(tmp_path / "two")
    assert torch.cuda.memory_reserved() <= before


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_gpus_store_is_drawn_again(net, tmp_path, device):
    """verify/test_verify.py."""
    run(net, tmp_path / "s", max_images=5)
    found = verify(VerifyConfig.parse({"store": tmp_path / "s", "resample": 5, "model": net, "device": device}))
    assert found.problems == []


def test_the_card_is_told_and_resumes_in_silence(net, tmp_path, recwarn):
    """store/test_store.py."""
    run(net, tmp_path / "s", max_images=3)
    run(net, tmp_path / "s", max_images=3)
    assert read_store(tmp_path / "s").provenance.cards == list_cards(GPU)
    assert not [warning for warning in recwarn if "holds records made on" in str(warning.message)]


def test_gradients_keep_all_their_bits():
    """runs/test_gradients.py."""
    images = torch.randn(4, 64, 16, 16, device=GPU, generator=torch.Generator(GPU).manual_seed(0))
    layer = nn.Conv2d(64, 64, 3, device=GPU)
    with torch.no_grad(), repeatable():
        found = layer(images).cpu()
    exact = nn.functional.conv2d(images.double(), layer.weight.double(), layer.bias.double()).cpu()
    assert (found - exact).abs().max() < 1e-5


def test_what_does_not_fit_the_machine_is_refused():
    """test_machine.py, smoothing/test_module.py."""
    with pytest.raises(InputError, match="torch finds"):
        find_device(f"cuda:{torch.cuda.device_count()}")
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    with pytest.raises(InputError, match="are on cpu, and it is to run on cuda"):
        SmoothedClassifier(model, 0.5, 2, device="cuda")
    g = SmoothedClassifier(model.to(GPU), 0.5, 2, device="cuda")
    assert g.predict(np.zeros((1, 2, 2), np.float32), n=100).counts.n == 100


def test_a_precision_is_what_the_card_has():
    """smoothing/test_precision.py."""
    layer = nn.Linear(2, 2).to(GPU)
    if torch.cuda.get_device_capability(GPU) < (8, 0):
        with pytest.raises(InputError, match="capability"):
            reduce_precision(layer, "tf32")
    else:
        assert reduce_precision(layer, "tf32")(torch.zeros(1, 2, device=GPU)).shape == (1, 2)


@two_gpus
def test_the_models_gpu_is_the_current_one():
    """smoothing/test_precision.py."""
    with isolate(torch.device("cuda", 1)):
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0


def test_a_diffusion_denoiser_waits_for_nothing(net):
    """classifiers/test_classifier.py."""
    from smoothcert.classifiers.classifier import _move

    class Kept(nn.Module):
        def forward(self, sample, timestep):
            return sample

    model = _move(DenoisedClassifier(DiffusionDenoiser(Kept(), noise_schedule({})), nn.Flatten(), 0.5), GPU)
    rows = torch.rand(2, 1, 4, 4, device=GPU)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(rows)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_one_rank_of_nccl_trains_with_a_moving_average(tmp_path, monkeypatch):
    """training/test_distributed.py: all that is sent is on the GPU, and the group is left."""
    config = TrainConfig.parse({"data": "digits", "model": "cnn", "model_option": {"width": 2}, "epochs": 1,
                                "objective": "clean", "max_images": 100, "ema": 0.9, "device": "cuda",
                                "out": tmp_path / "m"})
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("smoothcert.training.distributed.world_size", lambda: 2)
    with leave_processes():
        assert join_processes(GPU).world == 1
        sent = torch.ones((), device=GPU)
        torch.distributed.broadcast(sent, 0)
    assert not torch.distributed.is_initialized()
    monkeypatch.undo()
    assert train_share(config).epochs_done == 1


@two_gpus
def test_two_gpus_train_with_a_moving_average(tmp_path):
    """training/test_distributed.py."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "smoothcert", "train", "--data", "digits", "--model", "cnn", "--objective", "clean", "--epochs", "1",
               "--max-images", "200", "--ema", "0.9", "--device", "cuda", "-o", str(tmp_path / "m"), "--quiet"]
    subprocess.run(command, check=True, timeout=200)
    assert json.loads((tmp_path / "m" / "model.json").read_text())["epochs_done"] == 1
