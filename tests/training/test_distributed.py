"""Several processes train as one does: the same gradients, the same weights after a kill, and no one waits for ever.

As a script it is one of two processes: `test_distributed.py FOLDER` under torchrun's environment variables.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from smoothcert.classifiers.card import ModelCard
from smoothcert.classifiers.folder import read_card, read_weights
from smoothcert.data import from_tensors
from smoothcert.denoise import DenoisedClassifier, build_denoiser
from smoothcert.draws import generator, standard_normals
from smoothcert.errors import InputError, LostProcessError, ModelError
from smoothcert.machine import pick_device
from smoothcert.objectives import OBJECTIVES, build_objective
from smoothcert.progress import Event, Phase, Reporter
from smoothcert.training import distributed
from smoothcert.training.batches import TrainingSet
from smoothcert.training.distributed import Ranks, join_processes, leave_processes
from smoothcert.training.loop import Loop
from smoothcert.training.options import TrainConfig
from smoothcert.training.state import TrainState, build_state
from smoothcert.training.train import train

CPU = torch.device("cpu")
SIGMA, SHAPE = 0.5, (1, 6, 6)


@dataclass(frozen=True)
class Case:
    """An objective on batches of 5 and 6 images, or 5 and 5: uneven halves, and parts of 1 row, too few to share."""

    objective: str
    options: dict[str, Any]
    network: str = "plain"
    augment: str = "none"
    unlabelled: bool = False
    images: int = 11


CASES = {
    "gaussian": Case("gaussian", {}),
    "clean": Case("clean", {}, augment="crop-flip"),
    "smoothadv": Case("smoothadv", {"m": 4, "warmup": 0}),
    "smoothadv, ddn": Case("smoothadv", {"m": 2, "attack": "ddn"}, augment="flip"),
    "adre": Case("adre", {"k": 3, "eps": 0.5}),
    "stability": Case("stability", {}, network="normed"),
    "trades": Case("trades", {"steps": 2}, network="double"),
    "adversarial": Case("adversarial", {"steps": 2}, network="normed"),
    "macer": Case("macer", {"k": 4}),
    "consistency": Case("consistency", {}, unlabelled=True, augment="crop"),
    "smoothmix": Case("smoothmix", {"steps": 2, "warmup": 0}),
    "cat-rs": Case("cat-rs", {"m": 3, "steps": 2, "votes": 3}, network="double"),
    "nal": Case("nal", {"K": 2, "s": 2}),
    "nal, behind a denoiser": Case("nal", {"K": 1, "s": 2}, network="behind"),
    "wrm": Case("wrm", {"steps": 2}),
    "xhat": Case("xhat", {"steps": 2, "m": 2}, network="behind"),
    "deen": Case("deen", {}, network="energy"),
    "deen, many sigmas": Case("deen", {"sigmas": "0.1:1"}, network="conditioned"),
    "denoise": Case("denoise", {"stability": 1.0}, network="direct"),
    "gaussian, BatchNorm": Case("gaussian", {}, network="normed", unlabelled=True, images=10),
    "smoothadv, BatchNorm": Case("smoothadv", {"m": 2}, network="normed", images=10),
}


def classifier(norm: bool = False) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.5) if norm else nn.Identity(), nn.SiLU(),
                         nn.Flatten(), nn.Linear(64, 3))


class Widened(nn.Module):
    """For divergences that are so flat where an attack starts that rounding to float32 decides where it goes."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double()


def network(kind: str) -> tuple[nn.Module, nn.Module]:
    """What is trained, and what the objective is given: the same but behind a denoiser."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind in ("plain", "normed"):
            trained = classifier(kind == "normed")
        elif kind == "double":
            trained = nn.Sequential(Widened(), classifier().double())
        elif kind == "behind":
            trained = classifier()
            energy = build_denoiser("energy-residual", SHAPE, SIGMA, network="mlp", width=8, depth=1)
            return trained, DenoisedClassifier(energy.requires_grad_(False), trained, SIGMA)
        else:
            name, more = {"energy": ("energy-residual", {}), "conditioned": ("energy-scalar", {"conditioned": True}),
                          "direct": ("direct", {})}[kind]
            trained = build_denoiser(name, SHAPE, SIGMA, network="mlp", width=8, depth=1, **more)
        return trained, trained


class Recording(torch.optim.SGD):
    """Keeps the gradients of every step, and moves nothing."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=1.0)
        self.seen: list[torch.Tensor] = []

    def step(self, closure=None):
        found = [p.grad for p in self.param_groups[0]["params"] if p.grad is not None]
        self.seen.append(torch.cat([gradient.flatten() for gradient in found]).double().clone())


def epoch_of(case: Case, ranks: Ranks) -> dict[str, Any]:
    """The gradients of an epoch's steps, its figures, and what it leaves in the network's buffers."""
    images, labels = torch.rand(11, *SHAPE, generator=torch.Generator().manual_seed(1)), [0, 1, 2, 1] * 2 + [2, 2, 0]
    data = from_tensors(images, labels)
    sets = [TrainingSet("", data, data.labels, np.arange(case.images))]
    if case.unlabelled:
        sets.append(TrainingSet("pseudo", data, data.labels[::-1].copy(), np.arange(2, 9), 0.5))
    judged = case.objective == "cat-rs" or "stability" in case.options
    options = {**case.options, **({"classifier": network("plain")[0]} if judged else {})}
    trained, given = network(case.network)
    trained = ranks.synchronise_batchnorm(trained, CPU)
    optimizer = Recording(trained.parameters())
    state = TrainState(trained, ranks.wrap(given), optimizer, torch.amp.GradScaler("cpu", enabled=False), None)
    config = TrainConfig.parse({"objective": case.objective, "sigma": SIGMA, "batch_size": 5, "lr": 1.0,
                                  "augment": case.augment, "out": "unused",
                                  "classifier": "unused" if case.objective == "cat-rs" else None})
    loop = Loop(config, build_objective(case.objective, SIGMA, **options), sets, np.arange(1), state, ranks, CPU,
                Phase(Reporter(), "training", None, "steps"))
    figures = loop._fit(2)
    buffers = [b.double().flatten() for b in trained.buffers()] or [torch.zeros(1)]
    return {"gradients": optimizer.seen, "figures": figures, "buffers": torch.cat(buffers)}


NORMS = {
    "rows": ((11, 4), torch.float32, torch.contiguous_format),
    "images": ((11, 4, 5, 5), torch.float32, torch.contiguous_format),
    "images, channels last": ((11, 4, 5, 5), torch.float32, torch.channels_last),
    "images in bf16": ((11, 4, 5, 5), torch.bfloat16, torch.channels_last),
}


def normed(case: tuple[tuple[int, ...], torch.dtype, torch.memory_format], ranks: Ranks) -> dict[str, torch.Tensor]:
    """What BatchNorm makes of this process's rows: output, gradients, and the gradients of a gradient's size."""
    shape, kind, layout = case
    source = torch.Generator().manual_seed(3)
    whole, factor = (torch.randn(shape, generator=source) * 3 + 1 for _ in range(2))
    rows, factor = (x.to(kind)[ranks.rank :: ranks.world].contiguous(memory_format=layout) for x in (whole, factor))
    layer = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.3]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    layer = ranks.synchronise_batchnorm(layer, CPU)
    rows.requires_grad_()
    loss = (layer(rows).float().tanh() * factor).sum()
    plain = torch.autograd.grad(loss, [rows, layer.weight, layer.bias], retain_graph=True)
    found = dict(zip(("rows", "weight", "bias"), plain, strict=True))
    if kind is torch.float32:
        (followed,) = torch.autograd.grad(loss, rows, create_graph=True)
        found |= {"followed": followed.detach()}
        second = torch.autograd.grad(followed.square().sum(), [rows, layer.weight])
        found |= dict(zip(("second, rows", "second, weight"), second, strict=True))
    return {**found, "output": layer.eval()(rows).detach(), "mean": layer.running_mean, "variance": layer.running_var}


def settings(home: Path, name: str) -> dict[str, Any]:
    """A run with all that has a state: BatchNorm, an inner attack, momentum, a moving average, pseudo-labels."""
    data = f"parquet:{home / 'images.parquet'}"
    return {"data": data, "model": "cnn", "model_option": {"width": 2}, "objective": "smoothadv",
            "objective_option": {"m": 2, "steps": 1}, "sigma": 0.25, "epochs": 2, "batch_size": 32, "max_images": 60,
            "validation": 0.05, "ema": 0.9, "augment": "flip", "unlabelled": data,
            "pseudo_labels": str(home / "teacher"),
            "threads": 1, "device": "cpu", "out": str(home / name)}


def worker(folder: Path, ports: list[str]) -> None:
    """One of two processes: every case's epoch, then a whole run, then one in which rank 1 is killed."""
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    os.environ["MASTER_PORT"] = ports.pop()
    with leave_processes():
        ranks = join_processes(CPU)
        found = {name: epoch_of(case, ranks) for name, case in CASES.items()}
        found["norms"] = {name: normed(case, ranks) for name, case in NORMS.items()}
        found["agree"] = [ranks.agree(7, CPU), ranks.agree(rank, CPU)]
    torch.save(found, folder / f"rank-{rank}.pt")
    os.environ["MASTER_PORT"] = ports.pop()
    card = train(TrainConfig.parse(settings(folder, "whole")))
    (folder / f"card-{rank}.json").write_text(json.dumps([card.epochs_done, card.best]))

    def progress(event: Event) -> None:
        if "epoch 2/" in event.words and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    started = time.perf_counter()
    os.environ["MASTER_PORT"] = ports.pop()
    try:
        train(TrainConfig.parse(settings(folder, "killed")), progress)
    except LostProcessError as error:
        (folder / "survivor.json").write_text(json.dumps([str(error), time.perf_counter() - started]))
        os._exit(3)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """The folder of two processes that have done all that `worker` does."""
    folder = tmp_path_factory.mktemp("pair")
    write_images(folder)
    train(TrainConfig.parse({"data": f"parquet:{folder / 'images.parquet'}", "model": "linear", "objective": "clean",
                               "epochs": 1, "threads": 1, "device": "cpu", "out": folder / "teacher"}))
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [str(server.getsockname()[1]) for server in servers]
    for server in servers:
        server.close()
    children = [
        subprocess.Popen([sys.executable, __file__, str(folder), *ports], env={
            **os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"})
        for rank in range(2)
    ]
    try:
        assert [child.wait(120) for child in children] == [3, -signal.SIGKILL]
    finally:
        for child in children:
            child.kill()
    return folder


def write_images(folder: Path) -> None:
    """100 images, dark, grey or bright."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=100)
    pixels = 100 * labels[:, None, None] + rng.integers(50, size=(100, 8, 8))
    pq.write_table(pa.table({"image": pixels.tolist(), "label": labels}), folder / "images.parquet")


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_make_up_a_batch_with_its_noise(rows, world):
    """Every row is in some share with the numbers it has in one process, and the weights make means of means exact."""
    like = torch.zeros(())
    whole = standard_normals((rows, 2), generator(CPU, 0), like)
    values, shares = torch.rand(rows, generator=generator(CPU, 1)), [Ranks(r, world).share(rows) for r in range(world)]
    assert {row for share in shares for row in share.rows} == set(range(rows))
    for share in shares:
        source = generator(CPU, 0)
        source.hold(share.rows, rows)
        assert torch.equal(standard_normals((len(share.rows), 2), source, like), whole[list(share.rows)])
        assert torch.equal(torch.rand((), generator=source), torch.rand((), generator=after(rows)))
    means = [share.weight * values[list(share.rows)].mean() for share in shares]
    assert float(sum(means) / world) == pytest.approx(float(values.mean()))
    assert sum(share.counts for share in shares) == pytest.approx(rows)


def after(rows: int) -> torch.Generator:
    """What is left of a generator once a whole batch is drawn."""
    source = generator(CPU, 0)
    torch.randn(rows, 2, generator=source)
    return source


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    for processes in (2, 3):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert pick_device("cpu") == CPU
        for name in ("auto", "cuda"):
            if processes == 2:
                assert pick_device(name) == torch.device("cuda", 1)
            else:
                with pytest.raises(InputError, match=r"start 2 \(train --workers, torchrun --nproc-per-node\)"):
                    pick_device(name)


@pytest.fixture
def stand_in(monkeypatch):
    """A group that says it is of two, and is of this process alone: exchanges leave the tensors as they are."""
    begin = torch.distributed.init_process_group
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(torch.distributed.HashStore(), 0, 2)]))
    monkeypatch.setattr(torch.distributed, "init_process_group",
                        lambda backend, **given: begin(backend, **{**given, "world_size": 1}))
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def small_run(tmp_path: Path) -> TrainConfig:
    write_images(tmp_path)
    return TrainConfig.parse({"data": f"parquet:{tmp_path / 'images.parquet'}", "model": "cnn", "objective": "clean",
                              "model_option": {"width": 2}, "epochs": 1, "max_images": 32, "threads": 1, "ema": 0.9,
                              "device": "cpu", "out": tmp_path / "run"})


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_gone_when_its_group_ends(stand_in, tmp_path, monkeypatch, fails):
    """A network that is freed after its group can wait for ever: see `leave_processes`."""
    left: list[int] = []
    end = torch.distributed.destroy_process_group

    def count_and_end():
        left.append(sum(isinstance(thing, nn.parallel.DistributedDataParallel) for thing in gc.get_objects()))
        end()

    monkeypatch.setattr(torch.distributed, "destroy_process_group", count_and_end)
    if fails:
        monkeypatch.setattr(Loop, "_validate", raise_error)
        with pytest.raises(ModelError, match="as planned"):
            train(small_run(tmp_path))
    else:
        assert train(small_run(tmp_path)).epochs_done == 1
    assert left == [0]


def raise_error(loop: Loop, measure: object) -> None:
    raise ModelError("as planned")


def test_an_epoch_whose_exchange_failed_is_not_written(stand_in, tmp_path, monkeypatch):
    """NCCL gives a group up while its kernels end with whatever they had; the next exchange raises."""
    monkeypatch.setattr(Loop, "_validate", lambda loop, measure: monkeypatch.setattr(
        torch.distributed, "barrier", give_up) or {"validation_accuracy": 0.5, "validation_loss": 1.0})
    with pytest.raises(LostProcessError, match="another process of this run has ended"):
        train(small_run(tmp_path))
    assert read_card(tmp_path / "run").epochs_done == 0


def give_up() -> None:
    raise torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0.")


def test_a_process_on_a_gpu_is_told_which(monkeypatch):
    """The current device is its own, and NCCL's watchdog is told to give up the group and not the process."""
    told: dict[str, Any] = {}
    for name, value in {"WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "")  # so that it is put back
    monkeypatch.delenv("TORCH_NCCL_ASYNC_ERROR_HANDLING")
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(None, 1, 2)]))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.update(current=device))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **given: told.update(
        given, backend=backend, watchdog=os.environ.get("TORCH_NCCL_ASYNC_ERROR_HANDLING")))
    device = torch.device("cuda", 1)
    assert join_processes(device) == Ranks(1, 2)
    assert (told["backend"], told["current"], told["device_id"]) == ("nccl", device, device)
    assert told["watchdog"] == "2", "the watchdog would abort the process"


def test_only_what_is_on_the_device_is_sent(tmp_path):
    """NCCL takes nothing that is on the CPU, as the count of a moving average is."""
    config = small_run(tmp_path)
    card = ModelCard(model="cnn", options={"width": 2}, input_shape=(1, 8, 8), num_classes=3, kind="classifier",
                     class_names=("a", "b", "c"), levels=255, sigma=None, data={}, identity={})
    state = build_state(config, card, torch.device("meta"), Ranks(0, 1))
    assert {buffer.device.type for buffer in state.buffers} == {"meta"}


def test_every_objective_has_a_case():
    assert {case.objective for case in CASES.values()} == OBJECTIVES.keys()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradients_of_one(pair, name):
    """To 1e-6 of the largest entry, with batches that do not divide; figures and running statistics likewise.

    Rounding is of the size of the numbers that a figure is the difference of: a small one may be off by as much.
    """
    one = epoch_of(CASES[name], Ranks(0, 1))
    two, other = (torch.load(pair / f"rank-{rank}.pt", weights_only=False)[name] for rank in range(2))
    assert len(one["gradients"]) == len(two["gradients"]) >= 2
    for ours, theirs, thirds in zip(one["gradients"], two["gradients"], other["gradients"], strict=True):
        assert ours.abs().max() > 0
        assert (ours - theirs).abs().max() < 1e-6 * ours.abs().max()
        assert torch.equal(theirs, thirds)
    largest = max(map(abs, one["figures"].values()))
    assert two["figures"] == pytest.approx(one["figures"], rel=1e-5, abs=1e-6 * largest)
    if CASES[name].images == 10:
        assert torch.allclose(one["buffers"], two["buffers"], rtol=1e-5, atol=1e-6 * float(one["buffers"].abs().max()))
    assert torch.equal(two["buffers"], other["buffers"])


def test_processes_know_whether_they_agree(pair):
    for rank in range(2):
        assert torch.load(pair / f"rank-{rank}.pt", weights_only=False)["agree"] == [True, False]


@pytest.mark.parametrize("name", NORMS)
def test_batchnorm_matches_one_process_to_second_derivatives(pair, name):
    one = normed(NORMS[name], Ranks(0, 1))
    parts = [torch.load(pair / f"rank-{rank}.pt", weights_only=False)["norms"][name] for rank in range(2)]
    bound = 1e-5 if NORMS[name][1] is torch.float32 else 3e-2
    for figure, expected in one.items():
        if figure in ("mean", "variance"):
            found = parts[0][figure]
        elif figure.endswith(("weight", "bias")):  # each process has its own loss's
            found = parts[0][figure] + parts[1][figure]
        else:
            found = torch.empty_like(expected)
            found[::2], found[1::2] = parts[0][figure], parts[1][figure]
        assert (found - expected).abs().max() <= bound * expected.abs().max(), figure


def test_two_processes_train_the_network_of_one(pair):
    train(TrainConfig.parse(settings(pair, "one")))
    one, two = (read_weights(pair / name / "best.safetensors") for name in ("one", "whole"))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-5) for name in one)
    kept = [np.load(pair / name / "pseudo-labels.npz") for name in ("one", "whole")]
    assert all(np.array_equal(kept[0][key], kept[1][key]) for key in ("indices", "labels"))
    assert json.loads((pair / "card-0.json").read_text()) == json.loads((pair / "card-1.json").read_text())


def test_a_resumed_run_of_two_processes_ends_alike(pair):
    words, seconds = json.loads((pair / "survivor.json").read_text())
    assert "another process of this run has ended" in words
    assert seconds < 30
    assert read_card(pair / "killed").epochs_done == 1
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings(pair, "killed").items()
               if not isinstance(value, dict)]
    options += [f"--{name.replace('_', '-')}={key}={value}" for name, values in settings(pair, "killed").items()
                if isinstance(values, dict) for key, value in values.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
               "smoothcert", "train", *options, "--quiet"]
    told = subprocess.run(command, check=True, capture_output=True, timeout=200, text=True).stdout
    assert told.count("best epoch") == 1, "one process prints"
    whole, killed = read_card(pair / "whole"), read_card(pair / "killed")
    assert whole == killed
    assert whole.identity["processes"] == 2
    for name in ("best.safetensors", "checkpoints/0002/weights.safetensors"):
        assert (pair / "whole" / name).read_bytes() == (pair / "killed" / name).read_bytes()


if __name__ == "__main__":
    worker(Path(sys.argv[1]), sys.argv[2:])
