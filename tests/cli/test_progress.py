"""The progress of commands as people and pipes see it: phases, forecast, Ctrl-C, -q and -v."""

import io
import itertools
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from smoothcert.cli.interrupts import answer_interrupts
from smoothcert.cli.main import app
from smoothcert.progress import Event
from smoothcert.progress.bars import PlainLines
from smoothcert.runs.certify import certify, predict
from smoothcert.runs.executors import here
from smoothcert.runs.options import CertifyConfig, PredictConfig
from smoothcert.smoothing.engines import ENGINES, trial
from smoothcert.store.store import read_store

CLI = Path(sys.executable).parent / "smoothcert"
SLOW = """
import os, signal, time
import torch

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.last = torch.nn.Linear(64, 10)

    def forward(self, x):
        seconds = float(os.environ.get("SLOW", "0"))
        if seconds and len(x) >= 50:
            if os.environ.get("DEAF"):  # as in a long call of C, which another thread's signal does not interrupt
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            time.sleep(seconds)
        return self.last(x.flatten(1)).relu()

def build(num_classes):
    return Slow()
"""


FUNCTION = """
def build(num_classes):
    return lambda x: x.flatten(1)[:, :10]
"""


@pytest.fixture
def spec(tmp_path) -> str:
    (tmp_path / "slow.py").write_text(SLOW)
    return f"{tmp_path / 'slow.py'}:build"


def options(spec: str, out: Path, **more) -> list[str]:
    given = {"data": "digits", "sigma": 0.5, "n": 400, "max-images": 20, "seed": 0, "engine": "plain",
             "batch-size": 50, **more}
    return ["certify", spec, *(word for name, value in given.items() for word in (f"--{name}", str(value))),
            "-o", str(out)]


def start(command: list[str], **settings: str) -> subprocess.Popen:
    return subprocess.Popen([str(CLI), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **settings})


def wait_for_records(store: Path, count: int, child: subprocess.Popen) -> None:
    times = store / "times.jsonl"
    while not (times.exists() and len(times.read_text().splitlines()) >= count):
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.01)


def end(child: subprocess.Popen, number: int = signal.SIGINT) -> tuple[str, float]:
    """Send a signal; return what was said on standard error, and after how many seconds the process had ended."""
    sent = time.monotonic()
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    return said, time.monotonic() - sent


def runs(pid: str) -> bool:
    """Tell whether a process has not ended; of one that nobody has waited for only its number is left."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


class TestPhases:
    def test_come_in_order(self, spec, tmp_path):
        told: list[Event] = []
        given = {"model": spec, "data": "digits", "sigma": 0.5, "n": 100, "max_images": 3, "out": tmp_path / "s"}
        certify(CertifyConfig.parse(given), told.append)
        order = list(dict.fromkeys(event.phase for event in told if not event.line))
        assert order == ["loading the data", "loading the model", "preparing to sample", "hashing the data", "sampling"]
        (line,) = [event.line for event in told if event.line]
        assert line == "3 images x 200 samples = 600 samples"
        shares = [event.share for event in told if event.phase == "sampling"]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)

    def test_engines_are_counted_as_they_are_tried(self, spec, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        told: list[Event] = []
        given = {"model": spec, "data": "digits", "sigma": 0.5, "n": 10**9, "max_images": 1,
                 "out": tmp_path / "s"}

        def listen(event: Event) -> None:
            told.append(event)
            if event.words == "openvino" or event.phase == "sampling":
                raise KeyboardInterrupt

        for name in ("onnxruntime", "openvino"):
            monkeypatch.setitem(trial._STARTS, name, (0.0, 0.0, 0.0))
            monkeypatch.setitem(ENGINES, name, ENGINES["eager"])
        monkeypatch.setattr(trial, "versions_of", lambda name: "" if name in ("onnxruntime", "openvino") else None)
        with pytest.raises(KeyboardInterrupt):
            certify(CertifyConfig.parse(given), listen)
        assert [(event.done, event.total, event.words) for event in told
                if event.phase == "choosing an engine" and event.words] == [
                    (1, None, "eager"), (2, 3, "onnxruntime"), (3, 3, "openvino")]
        assert not (tmp_path / "s").exists()


class TestForecast:
    """The speed is measured, unless a run is too short for that; what is advised is a command that works."""

    @staticmethod
    def lines(run, config, monkeypatch, seconds: float = 100.0) -> list[str]:
        class Enough(BaseException):
            pass

        told: list[str] = []

        def listen(event: Event) -> None:
            if event.line:
                told.append(event.line)
            elif event.phase == "sampling":
                raise Enough

        monkeypatch.setattr("smoothcert.runs.certify.SamplingRun.measure", lambda self, most: 200 * most / seconds)
        with pytest.raises(Enough):
            run(config, listen)
        return told

    def test_says_images_samples_and_time(self, spec, tmp_path, monkeypatch):
        given = {"model": spec, "data": "digits", "sigma": 0.5, "engine": "plain", "max_images": 50}
        told = self.lines(certify, CertifyConfig.parse({**given, "n": 100_000, "out": tmp_path / "s"}), monkeypatch)
        assert told == [
            "50 images x 100,100 samples = 5M samples, about 1 min 40 s at 50k samples/s",
            "about a tenth of these samples usually decides whether radius 0.5 is certified: give --n-max 100000 "
            "--radii 0.5 in place of --n, and another -o (docs/speed.md)"]
        advised = re.findall(r"--(\S+) (\S+)", told[1].partition("give ")[2])[:2]
        assert advised == [("n-max", "100000"), ("radii", "0.5")]
        told = self.lines(certify, CertifyConfig.parse({
            **given, "n_max": 100_000, "radii": "0.5", "out": tmp_path / "t"}), monkeypatch)
        assert told == ["50 images x 100,100 samples at most = 5M samples, at most about 1 min 40 s at 50k samples/s"]

    @pytest.mark.parametrize(("more", "words"), [
        ({"n": 5000}, None), ({"n": 100_000, "method": "t-certify"}, None), ({}, "beside the other options"),
        ({"radii": "0.1,0.2,0.3"}, "--radii 0.2 beside")])
    def test_advises_where_it_helps(self, spec, tmp_path, monkeypatch, more, words):
        given = {"model": spec, "data": "digits", "sigma": 0.5, "engine": "plain", "max_images": 50, **more}
        told = self.lines(certify, CertifyConfig.parse({**given, "out": tmp_path / "s"}), monkeypatch)
        assert len(told) == (1 if words is None else 2)
        assert words is None or words in told[1]

    def test_advises_nothing_for_a_short_run(self, spec, tmp_path, monkeypatch):
        given = {"model": spec, "data": "digits", "sigma": 0.5, "engine": "plain", "max_images": 2, "n": 10_000}
        config = CertifyConfig.parse({**given, "out": tmp_path / "s"})
        assert len(self.lines(certify, config, monkeypatch, seconds=5.0)) == 1

    def test_advises_the_sequential_prediction(self, spec, tmp_path, monkeypatch):
        given = {"model": spec, "data": "digits", "sigma": 0.5, "engine": "plain", "max_images": 2, "n": 20_000}
        told = self.lines(predict, PredictConfig.parse({**given, "out": tmp_path / "s"}), monkeypatch)
        assert "give --n-max 20000 in place of --n, and another -o" in told[1]


class TestCtrlC:
    def test_says_what_is_kept_and_the_same_command_goes_on(self, spec, tmp_path):
        command = options(spec, tmp_path / "s")
        child = start(command, SLOW="0.02")
        wait_for_records(tmp_path / "s", 3, child)
        said, seconds = end(child)
        kept = read_store(tmp_path / "s").num_records
        assert f"interrupted: {kept} of 20 images are done and kept in {tmp_path / 's'}" in said
        assert f"the same command goes on from there:\n  smoothcert certify {spec}" in said
        assert child.returncode == 1
        assert seconds < 2, "1 s on a quiet machine"
        again = CliRunner().invoke(app, command)
        assert f"{kept} of 20 images are done; left: {20 - kept} images" in again.stderr
        assert read_store(tmp_path / "s").complete

    @pytest.mark.parametrize(("code", "more"), [(SLOW, []), (FUNCTION, ["--model-id", "NAME"])])
    @pytest.mark.parametrize("done", [0, 2])
    def test_the_command_that_is_told_goes_on(self, tmp_path, monkeypatch, code, more, done):
        """A model that is known by its answers alone needs a name once there are records of it."""
        def stop(run, pending):
            yield from itertools.islice(here(run, pending), done)
            raise KeyboardInterrupt

        (tmp_path / "net.py").write_text(code)
        command = options(f"{tmp_path / 'net.py'}:build", tmp_path / "s", **{"max-images": 4, "n": 100})
        monkeypatch.setattr(sys, "argv", ["smoothcert", *command])
        with monkeypatch.context() as patch:
            patch.setattr("smoothcert.runs.executors.here", stop)
            said = CliRunner().invoke(app, command)
        assert said.exit_code == 1
        assert f"interrupted: {done} of 4 images are done" in said.stderr
        told = shlex.split(said.stderr.splitlines()[-1])
        assert told == ["smoothcert", *command, *(more if done else [])]
        again = CliRunner().invoke(app, told[1:])
        assert again.exit_code == 0, again.stderr
        assert read_store(tmp_path / "s").complete

    def test_is_answered_while_a_step_cannot_be_interrupted(self, spec, tmp_path):
        child = start(options(spec, tmp_path / "s"), SLOW="8", DEAF="1")
        while not (tmp_path / "s" / "manifest.json").exists():
            time.sleep(0.02)
        time.sleep(0.3)
        said, seconds = end(child)
        assert f"interrupted: 0 of 20 images are done and kept in {tmp_path / 's'}" in said
        assert child.returncode == 1
        assert 0.5 < seconds < 6
        assert read_store(tmp_path / "s").num_records == 0

    @pytest.mark.slow
    def test_ends_the_workers_too(self, spec, tmp_path):
        child = start(options(spec, tmp_path / "s", workers=2), SLOW="0.05")
        wait_for_records(tmp_path / "s", 2, child)
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        workers = children.read_text().split() if children.exists() else []
        said, seconds = end(child)
        assert f"interrupted: {read_store(tmp_path / 's').num_records} of 20 images" in said
        assert seconds < 6
        assert len(workers) >= 2
        time.sleep(0.5)
        assert not any(map(runs, workers))

    def test_before_the_first_sample_says_so(self, spec, tmp_path, monkeypatch):
        def stop(*given, **more):
            raise KeyboardInterrupt

        monkeypatch.setattr("smoothcert.runs.certify.open_voter", stop)
        said = CliRunner().invoke(app, options(spec, tmp_path / "s"))
        assert said.exit_code == 1
        assert "interrupted; the same command starts again:" in said.stderr
        assert not (tmp_path / "s").exists()

    def test_in_training_counts_epochs(self, tmp_path):
        command = ["train", "--data", "digits", "--model", "mlp", "--sigma", "0.25", "--epochs", "500", "-o",
                   str(tmp_path / "m")]
        child, card = start(command), tmp_path / "m" / "model.json"
        while not card.exists() or not json.loads(card.read_text())["epochs_done"]:
            assert child.poll() is None, child.communicate()[1]
            time.sleep(0.02)
        said, seconds = end(child)
        done = json.loads(card.read_text())["epochs_done"]
        assert f"interrupted: {done} of 500 epochs are done and kept in {tmp_path / 'm'}" in said
        assert seconds < 2

    @pytest.mark.parametrize("where", ["train.train_share", "loop.Loop._step"])
    def test_before_the_first_epoch_of_a_training_says_that_nothing_is_kept(self, tmp_path, monkeypatch, where):
        def stop(*given, **more):
            raise KeyboardInterrupt

        monkeypatch.setattr(f"smoothcert.training.{where}", stop)
        said = CliRunner().invoke(app, ["train", "--data", "digits", "--sigma", "0.25", "-o", str(tmp_path / "m")])
        assert "interrupted; the same command starts again:" in said.stderr
        assert not (tmp_path / "m" / "metrics.jsonl").exists()

    def test_handlers_are_put_back(self):
        before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), answer_interrupts(lambda: None):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        assert signal.set_wakeup_fd(-1) == -1


class TestLoudness:
    def run(self, spec, out, *flags: str):
        command = options(spec, out, **{"max-images": 2, "n": 100})
        return CliRunner().invoke(app, [*command, *flags], catch_exceptions=False)

    def test_quiet_shows_results_alone(self, spec, tmp_path, recwarn):
        said = self.run(spec, tmp_path / "s", "-q")
        assert said.stderr == ""
        assert "2 images, sigma 0.5" in said.stdout
        wrong = CliRunner().invoke(app, ["table", str(tmp_path / "none"), "-q"])
        assert wrong.stderr.startswith("error: there is no store")

    def test_usual_shows_the_forecast(self, spec, tmp_path):
        assert self.run(spec, tmp_path / "s").stderr == "2 images x 200 samples = 400 samples\n"

    def test_verbose_shows_phases_times_and_choices(self, spec, tmp_path):
        said = self.run(spec, tmp_path / "s", "-v").stderr
        for words in (r"\d\d:\d\d:\d\d loading the data: \d+\.\d\d s", "engine plain, batches of 50",
                      r"hashing the data: \d+\.\d\d s, 2 images", r"sampling: \d+\.\d\d s, 2 images"):
            assert re.search(words, said), words

    def test_both_are_refused(self, spec, tmp_path):
        said = self.run(spec, tmp_path / "s", "-v", "-q")
        assert said.exit_code == 2
        assert "give one of them" in said.stderr


def test_a_pipe_gets_plain_lines(spec, tmp_path):
    child = start(options(spec, tmp_path / "s", **{"max-images": 6}), SLOW="0.1", FORCE_COLOR="1")
    _, said = child.communicate(timeout=100)
    lines = [line for line in said.splitlines() if line.startswith("sampling:")]
    assert re.search(r"sampling: \d+%, \d/6 images, [\d.]+k? samples, [\d.]+k?/s, \d s so far, \d+ s left", said)
    assert 1 <= len(lines) <= 5
    assert re.fullmatch(r"[ -~\n]*", said)


def test_a_terminal_shows_movement_every_two_seconds_and_a_true_time(spec, tmp_path):
    """About 6 s of sampling; the first estimate of the time that is left is within 30 % of what it then takes."""
    command = [str(CLI), *options(spec, tmp_path / "s", **{"max-images": 3, "n": 1000})]
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update({"SLOW": "0.1", "TERM": "xterm", "COLUMNS": "120"})
        os.execvp(command[0], command)
    seen: list[tuple[float, str]] = []
    while select.select([terminal], [], [], 60)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        seen.append((time.monotonic(), data.decode(errors="replace")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen[-1]
    assert max(later[0] - sooner[0] for sooner, later in pairwise(seen)) < 3
    first, left = next((moment, int(found[1])) for moment, text in seen
                       if (found := re.search(r"0/3 images.* (\d+) s left", text)))
    last = max(moment for moment, text in seen if "images" in text and "samples" in text)
    assert left == pytest.approx(last - first, rel=0.3, abs=1.5)  # shown in whole seconds
    assert any("3/3 images" in text for _, text in seen)


def test_no_thread_outlives_a_command():
    """A thread that is left when the interpreter ends is torn out of C++ code, which aborts the process."""
    lines = PlainLines(io.StringIO())
    with answer_interrupts(lambda: None):
        lines(Event("sampling", seconds=0.0))
    lines.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("smoothcert")] == []
