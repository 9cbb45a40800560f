"""A Ray cluster of two nodes on this machine, with a token: the bytes of a run by one process, whoever dies."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nets import write_nets
from smoothcert.errors import ConfigError, InputError, MissingExtraError, SmoothcertError
from smoothcert.progress import Event
from smoothcert.runs.attack import attack
from smoothcert.runs.certify import certify
from smoothcert.runs.cluster import BLOCK, Actors, by_cluster
from smoothcert.runs.crew import by_crew
from smoothcert.runs.options import AttackConfig, CertifyConfig, DistributionalConfig
from smoothcert.runs.ray_connection import join_cluster

SLOW = """
import time
class Slow(Means):
    def forward(self, x):
        time.sleep(.02)
        return super().forward(x)
"""

SOON_DEAD = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_timeout_ms": 5000,
             "health_check_failure_threshold": 2}
"""Ray's settings for noticing soon that a node is gone."""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    write_nets(folder, 4, SLOW)
    return folder


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", "a" * 64)
        patch.setenv("RAY_AUTH_MODE", "token")
        ray = pytest.importorskip("ray", reason="needs ray")
        from ray.cluster_utils import Cluster

        if hasattr(ray.exceptions, "AuthenticationError"):
            ray._raylet.Config.initialize("")  # it may have been imported before
        running = Cluster(initialize_head=True, head_node_args={
            "num_cpus": 1, "include_dashboard": False, "_system_config": SOON_DEAD})
        yield running
        running.shutdown()


def options(home: Path, out: Path, net: str = "Means", **more) -> dict[str, Any]:
    return {"model": f"{home}/nets.py:{net}", "data": "digits", "sigma": 0.25, "seed": 1, "engine": "plain",
            "max_images": 50, "out": out, **more}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in [*folder.glob("*.parquet"), *folder.glob("adversaries/*")]}


@pytest.mark.slow
def test_a_node_and_then_the_driver_are_killed(home, nodes, tmp_path):
    """The driver is killed while both nodes work; the next one sees a node die, and ends with one process's bytes."""
    certify(CertifyConfig.parse(options(home, tmp_path / "whole", "Slow", n=1000, batch_size=200)))
    second = nodes.add_node(num_cpus=1)
    given = options(home, tmp_path / "run", "Slow", n=1000, batch_size=200, cluster=nodes.address)
    flags = [text for name, value in given.items() if name != "model"
             for text in (f"--{name.replace('_', '-')}", str(value))]
    driver = subprocess.Popen([sys.executable, "-m", "smoothcert", "certify", "nets.py:Slow", *flags, "-q"], cwd=home)
    times = tmp_path / "run" / "times.jsonl"
    while not (times.exists() and times.read_bytes().count(b"\n") >= BLOCK) and driver.poll() is None:
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    done = len(times.read_text().splitlines())
    assert BLOCK <= done < 50
    gone = threading.Event()

    def progress(event: Event) -> None:
        if event.done > done and not gone.is_set():
            gone.set()
            nodes.remove_node(second, allow_graceful=False)

    finished = certify(CertifyConfig.parse(given), progress)
    assert gone.is_set()
    assert finished.complete
    assert content(tmp_path / "run") == content(tmp_path / "whole") != {}


@pytest.mark.slow
def test_the_cluster_asks_for_its_token(nodes):
    """Ray's own heads do what `Guarded` does below."""
    if not hasattr(sys.modules["ray"].exceptions, "AuthenticationError"):
        pytest.skip("Ray before 2.52 has no tokens")
    code = ("from smoothcert.runs.ray_connection import join_cluster\n"
            f"with join_cluster({nodes.address!r}) as ray: print(ray.get(ray.put('joined')))")
    env = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    refused = "asks for its token, but the one in RAY_AUTH_TOKEN is another"
    for token, words in (("a" * 64, "joined"), ("b" * 64, refused)):
        told = subprocess.run([sys.executable, "-c", code], env={**env, "RAY_AUTH_TOKEN": token}, text=True,
                              capture_output=True, timeout=100, check=False)
        assert words in (told.stdout or told.stderr)


@pytest.mark.slow
def test_an_attack_gives_the_bytes_of_one_process_there(home, nodes, tmp_path):
    for where in ({}, {"cluster": nodes.address, "workers": 1}):
        attack(AttackConfig.parse(options(home, tmp_path / f"attack{len(where)}", **where) | {
            "n": "100", "steps": 2, "eps": "0.3", "m": "0,4", "max_images": 20, "save_adversaries": True}))
    assert content(tmp_path / "attack0") == content(tmp_path / "attack2") != {}


@pytest.mark.slow
def test_an_error_of_a_worker_is_the_runs(home, nodes, tmp_path):
    """The model changes between the driver's look at it and the workers'."""
    write_nets(tmp_path, 4, "")
    given = CertifyConfig.parse(options(tmp_path, tmp_path / "s", n=100, cluster=nodes.address))

    def progress(event: Event) -> None:
        if event.phase == "sampling":
            write_nets(tmp_path, 5, "")

    with pytest.raises(SmoothcertError, match=r"prepared another run than its driver \(they differ in .*model\.sha256"):
        certify(given, progress)


class Positions:
    """A run of which only the positions matter: tasks of one or of several, as an attack has them."""

    def reopen(self):
        return None

    def __init__(self, size: int):
        self.size = size
        self.config = SimpleNamespace(cluster="local", workers=2, threads=None)
        self.identity = SimpleNamespace(device="cpu", record_count=200)

    def passes(self, position, record=None):
        return 100

    def release(self):
        pass

    def tasks(self, pending):
        units: dict[int, list[int]] = {}
        for position in pending:
            units.setdefault(position % 3 * 1000 + position // (3 * self.size), []).append(position)
        return [tuple(unit) for unit in units.values()]


@pytest.mark.parametrize("size", [1, 5, 16])
def test_blocks_are_of_the_whole_list_and_lose_nothing(size):
    run, everything = Positions(size), list(range(200))
    actors = Actors(None, run)
    whole = actors.loads(run, everything)
    assert sorted(p for block in whole for task in block for p in task) == everything
    assert all(sum(map(len, block)) >= BLOCK for block in whole[:-1])
    left = [p for p in everything if p % 7 and p < 190]
    blocks = actors.loads(run, left)
    assert sorted(p for block in blocks for task in block for p in task) == left
    home_of = {p: k for k, block in enumerate(whole) for task in block for p in task}
    assert all(len({home_of[p] for task in block for p in task}) == 1 for block in blocks)


@dataclass(eq=False)
class Promised:
    block: list
    lost: bool


class Dying:
    """A Ray whose first workers, `lives` of them, are lost as soon as they have been given a block; the driver's own
    node, once `dies` of them were started."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, lives: int, dies: int = 10**6):
        self.lives, self.started, self.dies = lives, 0, dies

    def remote(self, **needs):
        return lambda kind: SimpleNamespace(remote=self._start)

    def cluster_resources(self):
        return {"CPU": 2.0}

    def nodes(self):
        return [{"NodeID": "a", "Alive": self.started < self.dies}, {"NodeID": "b", "Alive": True}]

    def get_runtime_context(self):
        return SimpleNamespace(get_node_id=lambda: "a")

    def _start(self, *given):
        self.started += 1
        survives = self.started > self.lives

        def work(block):
            return Promised(block, lost=bool(block) and not survives)

        aside = SimpleNamespace(remote=lambda: Promised(None, lost=False))
        return SimpleNamespace(work=SimpleNamespace(remote=work),
                               take_drawn=SimpleNamespace(options=lambda concurrency_group: aside))

    def wait(self, references, timeout, num_returns=1):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        if reference.lost:
            raise self.exceptions.RayError("the node is gone")
        if reference.block is None:
            return 50
        return "done", [(p, "record", 0.0) for task in reference.block for p in task], 50


def test_lost_workers_cost_only_their_blocks():
    ray = Dying(lives=3)
    done = list(by_crew(run := Positions(1), range(100), Actors(ray, run)))
    assert sorted(position for position, _, _ in done) == list(range(100))
    assert ray.started > 3


def test_workers_that_all_die_end_the_run():
    ray = Dying(lives=10**6)
    with pytest.raises(SmoothcertError, match=r"keep dying .* The last one said: the node is gone"):
        list(by_crew(run := Positions(1), range(100), Actors(ray, run)))
    assert ray.started <= 8


def test_a_driver_whose_own_node_died_says_so():
    ray = Dying(lives=10**6, dies=3)
    with pytest.raises(SmoothcertError, match="joined through has died"):
        list(by_crew(run := Positions(1), range(100), Actors(ray, run)))


def test_what_is_refused(home, tmp_path, monkeypatch):
    run = Positions(1)
    run.config.cluster = "127.0.0.1:1"
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"smoothcert\[ray\]"):
        list(by_cluster(run, [0]))
    assert list(by_cluster(run, [])) == []
    monkeypatch.setitem(sys.modules, "ray", Refusing())
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"):
        run.config.cluster = address
        with pytest.raises(InputError, match=rf"(?s)cannot join {address}: .*auto or local"):
            list(by_cluster(run, [0]))
    run.config.cluster = "auto"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"cannot join 127\.0\.0\.1:1"):
        list(by_cluster(run, [0]))
    for value in (None, "", "auto"):
        monkeypatch.delenv("RAY_ADDRESS") if value is None else monkeypatch.setenv("RAY_ADDRESS", value)
        for found in ("127.0.0.1:1", None):  # a cluster that is gone, and none
            monkeypatch.setitem(sys.modules, "ray", Refusing(found))
            with pytest.raises(InputError, match="cannot join local: asked to join local"):
                list(by_cluster(run, [0]))
    monkeypatch.setattr(Refusing, "init", starts_too_slowly)
    run.config.cluster = "local"
    with pytest.raises(InputError, match=r"(?s)cannot join local: The current node timed out.*use --workers"):
        list(by_cluster(run, [0]))
    with pytest.raises(ConfigError, match="cluster"):
        DistributionalConfig.parse({"model": str(tmp_path), "cluster": 3})


def starts_too_slowly(ray: Any, address: str, **options: Any) -> None:
    raise Exception("The current node timed out during startup")  # as Ray itself does


class Refusing:
    """As much of Ray as finding a cluster and being refused by it takes; it has no tokens, as before Ray 2.52."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, found: str | None = None):
        self._found = found
        self._private = SimpleNamespace(services=SimpleNamespace(canonicalize_bootstrap_address=self._find))

    def is_initialized(self) -> bool:
        return False

    def init(self, address: str, **options: Any) -> None:
        raise ConnectionError(f"asked to join {address}")

    def shutdown(self) -> None:
        pass

    def _find(self, address: str) -> str:
        assert address == "auto"
        if self._found is None:
            raise ConnectionError("Could not find any running Ray instance")
        return self._found


class Guarded(Refusing):
    """Ray as it treats tokens from 2.52 on: a head answers who shows what it asks for, and aborts who shows nothing.

    Args:
        token: the head's, or None where it takes everybody.
    """

    class AuthenticationError(Refusing.exceptions.RayError):
        pass

    exceptions = SimpleNamespace(RayError=Refusing.exceptions.RayError, AuthenticationError=AuthenticationError)

    def __init__(self, address: str, token: str | None):
        super().__init__(address)
        self._token, self._mode, self.joined = token, os.environ.get("RAY_AUTH_MODE"), ""
        self._raylet = SimpleNamespace(Config=SimpleNamespace(initialize=self._read), GcsClient=self._ask)

    def init(self, address: str, **options: Any) -> None:
        self._ask(address)
        assert (self._mode == "token") == (self._token is not None), "the workers and the driver do not understand"
        self.joined = address

    def _read(self, _: str) -> None:
        self._mode = os.environ.get("RAY_AUTH_MODE")

    def _ask(self, address: str) -> None:
        shown = self._shown() if self._mode == "token" else None
        if self._token is not None and shown != self._token:
            raise self.AuthenticationError("InvalidAuthToken")

    def _shown(self) -> str:
        if token := os.environ.get("RAY_AUTH_TOKEN"):
            return token
        path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
        if not path.is_file():
            raise self.AuthenticationError("couldn't find an authentication token")
        return path.read_text()


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def own_home(tmp_path, monkeypatch) -> Path:
    """A home folder without a token, and an environment that says nothing of any."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_K8S_TOKEN_AUTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def put_token(home: Path, token: str) -> None:
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text(token)


@pytest.mark.parametrize("address", ["auto", "HOST:PORT", "ray://HOST:PORT"])
@pytest.mark.parametrize(("token", "mode"), [("t", None), ("t", "token"), (None, None), (None, "token")])
def test_a_cluster_gets_the_token_that_it_asks_for(address, token, mode, own_home, listening, monkeypatch):
    """Of the home folder; and one that asks for none is shown none, without which its workers could not answer."""
    if address.startswith("ray://") and token is None:
        pytest.skip("Ray's client may show a token to everybody")
    put_token(own_home, "t")
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    ray = Guarded(listening, token)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with join_cluster(address.replace("HOST:PORT", listening)):
        assert ray.joined.endswith(listening)
    assert os.environ.get("RAY_AUTH_MODE") == mode, "left as it was"


@pytest.mark.parametrize(("of_home", "settings", "words"), [
    (None, {}, r"none was found in .*\.ray/auth_token"),
    (None, {"RAY_AUTH_MODE": "token"}, r"none was found in .*\.ray/auth_token"),
    ("", {}, r"none was found in .*\.ray/auth_token"),
    ("other", {}, r"the one in .*\.ray/auth_token is another"),
    ("t", {"RAY_AUTH_TOKEN": "other"}, "the one in RAY_AUTH_TOKEN is another"),
    ("t", {"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "none was found in /nowhere"),
    ("t", {"RAY_AUTH_MODE": "disabled"}, "the one in .* was not shown, because RAY_AUTH_MODE is not token"),
])
def test_a_refused_token_is_named(of_home, settings, words, own_home, listening, monkeypatch):
    if of_home is not None:
        put_token(own_home, of_home)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "ray", Guarded(listening, "t"))
    expected = rf"asks for its token, but {words}.*\n.*ray get-auth-token"
    with pytest.raises(InputError, match=expected), join_cluster(listening):
        pass
