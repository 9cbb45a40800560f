"""Several processes: the same bytes as one, whoever dies."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from progress_events import sampled
from smoothcert.errors import SmoothcertError
from smoothcert.runs import certify as certify_module
from smoothcert.runs import crew, workers
from smoothcert.runs.attack import attack
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.options import AttackConfig, CertifyConfig, PredictConfig
from smoothcert.store.store import read_store

CLI = Path(sys.executable).parent / "smoothcert"

LINEAR = """
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = torch.nn.Linear(64, 10)
"""

NET = f"""
import multiprocessing, os, signal, time
import torch
{LINEAR}
    def forward(self, x):
        if os.environ.get("SLOW"):
            time.sleep(float(os.environ["SLOW"]))
        if os.environ.get("DIES") and multiprocessing.parent_process() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.last(x.flatten(1))

def make():
    return Net()
"""


@pytest.fixture
def net(tmp_path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path}/net.py:make"


def options(net: str, out: Path, **more):
    return {"model": net, "sigma": 0.5, "seed": 1, "max_images": 12, "engine": "plain", "out": out, **more}


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.mark.slow
def test_two_processes_write_what_one_writes(net, tmp_path):
    """Images that stop at different looks here, the fixed design beside killed workers below; one prediction, which
    starts one worker."""
    for count in (1, 2):
        certify(CertifyConfig.parse(options(net, tmp_path / f"c{count}", workers=count, n_max=3000,
                                              radii="0.05,0.2")))
        predict(PredictConfig.parse(options(net, tmp_path / f"p{count}", workers=count, n_max=500, max_images=1)))
    for kind in "cp":
        one, two = (read_store(tmp_path / f"{kind}{count}") for count in (1, 2))
        assert two.complete
        assert shards(one.folder) == shards(two.folder) != {}
        assert one.identity == two.identity


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_images_done_again(net, tmp_path, monkeypatch):
    whole = certify(CertifyConfig.parse(options(net, tmp_path / "whole", n=400)))
    monkeypatch.setenv("SLOW", "0.02")
    victims = []

    def killer():
        started = time.monotonic()
        while len(victims) < 2 and time.monotonic() - started < 60:
            for child in workers.mp.active_children():
                busy = told and told[-1] > len(victims)
                if busy and child.name.startswith("smoothcert-") and child.pid not in victims:
                    victims.append(child.pid)
                    os.kill(child.pid, signal.SIGKILL)
                    break
            time.sleep(0.05)

    told: list[int] = []
    hunter = threading.Thread(target=killer)
    hunter.start()
    store = certify(CertifyConfig.parse(options(net, tmp_path / "hunted", n=400, workers=2)),
                    sampled(told))
    hunter.join()
    assert len(victims) == 2
    assert store.complete
    assert shards(store.folder) == shards(whole.folder)
    assert store.identity == whole.identity
    assert sorted(told) == told
    assert set(told) == set(range(13))


@pytest.mark.slow
def test_workers_that_keep_dying_end_the_run_and_lose_nothing(net, tmp_path, monkeypatch):
    out = tmp_path / "s"
    monkeypatch.setenv("DIES", "1")
    monkeypatch.setattr(crew, "DEATHS", 1)
    with pytest.raises(SmoothcertError, match=r"keep dying .* the last one was killed \(signal 9\): is there enough"):
        certify(CertifyConfig.parse(options(net, out, n=100, workers=2)))
    monkeypatch.delenv("DIES")
    assert certify(CertifyConfig.parse(options(net, out, n=100))).complete


@pytest.mark.slow
def test_a_killed_driver_takes_its_workers_along(net, tmp_path):
    command = [str(CLI), "certify", net, "--sigma", "0.5", "--seed", "1", "--max-images", "12", "--n", "400",
               "--engine", "plain", "--workers", "2", "--quiet", "-o"]
    out = tmp_path / "killed"
    driver = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, env={**os.environ, "SLOW": "0.05"})
    started = time.monotonic()
    while not (out / "journal.jsonl").exists() and time.monotonic() - started < 100:
        time.sleep(0.05)
    crew = children(driver.pid)
    assert len(crew) >= 2
    driver.kill()
    driver.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in crew) and time.monotonic() - started < 120:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in crew)
    for folder in (out, tmp_path / "whole"):
        assert certify(CertifyConfig.parse(options(net, folder, n=400))).complete
    assert shards(out) == shards(tmp_path / "whole")


ROOMY = """
import multiprocessing, time
from pathlib import Path
import torch
from smoothcert.smoothing import voters

if multiprocessing.parent_process():
    voters._CHUNK_ROWS, voters._CHUNK_VALUES = 2**18, 2**40  # a round has the room of a GPU's
time.sleep(2 * (multiprocessing.current_process().name == "smoothcert-1"))

""" + LINEAR + """
    def forward(self, x):
        with (Path(__file__).parent / f"{multiprocessing.current_process().name}.rows").open("a") as file:
            file.write(f"{len(x)}\\n")
        time.sleep(5e-5 * len(x))  # the work: no more of it for a worker that other processes slow down
        return self.last(x.flatten(1))

def make():
    return Net()
"""


@pytest.mark.slow
def test_workers_share_evenly_whatever_their_start(tmp_path, monkeypatch):
    """60 images in rounds that have room for all of them, the second worker 2 seconds behind the first."""
    monkeypatch.setattr(workers.Pipes, "patience", 100.0)  # both start, however busy the machine is
    (tmp_path / "net.py").write_text(ROOMY)
    certify(CertifyConfig.parse(options(f"{tmp_path}/net.py:make", tmp_path / "s", max_images=60, n=1000, workers=2)))
    done = [sum(map(int, (tmp_path / f"smoothcert-{place}.rows").read_text().split())) for place in (0, 1)]
    assert sum(done) >= 60 * 1100
    assert abs(done[0] - done[1]) <= 0.1 * sum(done)


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_error_in_a_worker_reaches_the_user(net, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_serve", _broken)
    with pytest.raises(SmoothcertError, match="no luck today"):
        certify(CertifyConfig.parse(options(net, tmp_path / "s", n=100, workers=2, max_images=1)))


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    told, mine, theirs = [], *workers.mp.Pipe()
    monkeypatch.setenv("LOCAL_RANK", "")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)

    def reopen():
        raise SmoothcertError(f"GPU {os.environ['LOCAL_RANK']}")

    for place in (0, 1, 3):
        workers._serve(theirs, reopen, SimpleNamespace(device="cuda"), place)
        assert str(mine.recv()[1]) == f"GPU {place % 2}"
    assert told == [0, 1, 1]
    workers._serve(theirs, reopen, SimpleNamespace(device="cpu"), 1)
    assert len(told) == 3, "a run on the CPU opens no GPU"


@pytest.mark.parametrize("attacks", [False, True])
def test_the_driver_frees_the_gpu_before_its_workers_open_it(net, tmp_path, monkeypatch, attacks):
    opened, freed = [], []
    open_voter = certify_module.open_voter

    def watched(*given):
        ready = open_voter(*given)
        opened.append(weakref.ref(ready.voter))
        return ready

    def start(transport, place):
        raise SmoothcertError(f"{[voter() for voter in opened]}, freed {len(freed)} time(s)")

    monkeypatch.setattr(certify_module, "open_voter", watched)
    monkeypatch.setattr(workers.Pipes, "start", start)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(1))
    with pytest.raises(SmoothcertError, match=r"\[None\], freed 1 time"):
        if attacks:
            attack(AttackConfig.parse(options(net, tmp_path / "a", n="100", workers=2, eps="0.1", m=1, steps=1)))
        else:
            certify(CertifyConfig.parse(options(net, tmp_path / "s", n=100, workers=2)))


def _broken(pipe, *rest):
    pipe.send(("error", SmoothcertError("no luck today")))


def test_dense_counts_are_of_the_last_look(net, tmp_path):
    store = certify(CertifyConfig.parse(options(net, tmp_path / "s", n_max=3000, radii="0.05,0.2")))
    for row, history in enumerate(store.histories()):
        estimates = [look.counts for look in history if look.stage == "estimate"]
        assert np.array_equal(store.counts("estimate")[row], estimates[-1])
        assert all((later >= earlier).all() for earlier, later in itertools.pairwise(estimates))
