"""Several processes: the same bytes as one, whoever dies."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from progress_events import sampled
from smoothcert.errors import SmoothcertError
from smoothcert.runs import crew, workers
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.store.store import read_store

CLI = Path(sys.executable).parent / "smoothcert"

NET = """
import multiprocessing, os, signal, time
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = torch.nn.Linear(64, 10)

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


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_error_in_a_worker_reaches_the_user(net, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_serve", _broken)
    with pytest.raises(SmoothcertError, match="no luck today"):
        certify(CertifyConfig.parse(options(net, tmp_path / "s", n=100, workers=2, max_images=1)))


def _broken(pipe, *rest):
    pipe.send(("error", SmoothcertError("no luck today")))


def test_dense_counts_are_of_the_last_look(net, tmp_path):
    store = certify(CertifyConfig.parse(options(net, tmp_path / "s", n_max=3000, radii="0.05,0.2")))
    for row, history in enumerate(store.histories()):
        estimates = [look.counts for look in history if look.stage == "estimate"]
        assert np.array_equal(store.counts("estimate")[row], estimates[-1])
        assert all((later >= earlier).all() for earlier, later in itertools.pairwise(estimates))
