"""The parts of the GPU's benchmark that run whole commands; see gpu.py."""

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import torch
from gpu_setting import Finding, Setting

import smoothcert
from smoothcert.training.distributed import Ranks

_COMMAND = [sys.executable, "-m", "smoothcert"]


def check_workers(setting: Setting) -> list[Finding]:
    """Two workers on one device: a worker is killed, then all of the command, and the same command goes on."""
    images, n = ("6", "1000") if setting.quick else ("60", "100000")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        device = ["--device", str(setting.device), "--quiet"]
        _run(["train", "--data", "digits", "--model", "cnn", "--sigma", "0.25", "--epochs", "1", *device, "-o",
              str(folder / "model")])
        certify = ["certify", str(folder / "model"), "--max-images", images, "--n", n, "--seed", "0", "--engine",
                   "plain", *device]
        _run([*certify, "-o", str(folder / "whole")])
        certify += ["--workers", "2", "-o", str(folder / "killed")]
        victims = _kill(certify, folder / "killed" / "times.jsonl")
        _run(certify)
        shards = [{path.name: path.read_bytes() for path in (folder / name).glob("*.parquet")}
                  for name in ("whole", "killed")]
    equal = bool(shards[0]) and shards[0] == shards[1]
    return [Finding("", "counts of two workers after SIGKILL, beside one's", equal,
                    f"{images} images, n = {n}; killed: {', '.join(victims) or 'none in time'}")]


def _run(words: list[str]) -> None:
    subprocess.run([*_COMMAND, *words], check=True, stdout=subprocess.DEVNULL)


def _kill(words: list[str], times: Path) -> list[str]:
    """Start a command, kill one of its processes after the first image and the command after more, and name them."""
    victims, command = list[str](), subprocess.Popen([*_COMMAND, *words], stdout=subprocess.DEVNULL,
                                                     stderr=subprocess.DEVNULL, start_new_session=True)
    for name, images in (("a worker", 1), ("the command", 3)):
        while command.poll() is None and (not times.exists() or len(times.read_text().splitlines()) < images):
            time.sleep(0.01)
        if command.poll() is not None:
            break
        tasks = Path(f"/proc/{command.pid}/task").glob("*/children")
        children = [int(child) for path in tasks for child in path.read_text().split()]
        with suppress(ProcessLookupError):
            os.kill(children[-1] if images == 1 and children else command.pid, signal.SIGKILL)
            victims.append(name)
    with suppress(ProcessLookupError):
        os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    return victims


def check_training(setting: Setting) -> list[Finding]:
    """Training under autocast, with an average of the weights, in a process group of one."""
    images, found = 320 if setting.quick else None, []
    for autocast in ("bf16", "fp16") if setting.on_gpu else ("none",):
        with tempfile.TemporaryDirectory() as name, _group_of_one(setting, Path(name)) as backend:
            out = Path(name) / "model"
            smoothcert.train(data="digits", model="cnn", sigma=0.25, epochs=2, ema=0.99, autocast=autocast,
                             batch_size=64, max_images=images, device=str(setting.device), out=out)
            losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        found.append(Finding("", f"--autocast {autocast} --ema in a group of one, {backend}",
                             all(map(math.isfinite, losses)),
                             f"loss {losses[0]:.3f}, then {losses[-1]:.3f}"))
    return found


@contextmanager
def _group_of_one(setting: Setting, folder: Path) -> Iterator[str]:
    """Let training take this process for the first of two, in a group that has only this one; give the backend."""
    backend = "nccl" if setting.on_gpu else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{folder}/group", rank=0, world_size=1)
    try:
        with mock.patch("smoothcert.training.train.join_processes", return_value=Ranks(0, 2)):
            yield backend
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def run_tests(setting: Setting) -> list[Finding]:
    """tests/test_gpu.py, and a quick selftest with the eager engine."""
    if setting.quick:
        return [Finding("", "tests/test_gpu.py and selftest", None, "not run by --quick")]
    root = Path(__file__).resolve().parents[1]
    commands = {
        "selftest --quick": ["-m", "smoothcert", "selftest", "--quick", "--engine", "eager", "--device",
                             str(setting.device), "--seed", "0"],
        "tests/test_gpu.py": ["-m", "pytest", "-q", "-n", "0", "tests/test_gpu.py", "tests/smoothing/gpu"],
    }
    found = []
    for name, command in commands.items():
        done = subprocess.run([sys.executable, *command], cwd=root, capture_output=True, text=True, check=False,
                              timeout=max(setting.left, 1.0))
        last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1:]
        found.append(Finding("", name, done.returncode == 0, " ".join(last)[:200]))
    return found
