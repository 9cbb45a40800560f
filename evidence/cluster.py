"""Ray nodes and drivers killed at random moments: byte for byte the shards of an uninterrupted run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from workplace import CLI, fresh

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from test_cluster import SOON_DEAD

from faulting import Fault, Place, clear, judged, place, small_shards
from smoothcert.progress import Event, reporting
from smoothcert.runs.cluster import by_cluster
from smoothcert.store.store import read_store
from steps import ended

NODES, DRIVERS = 8, 3
RECORDS = 160


def node_killed(nodes: Any, where: Place, rng: np.random.Generator) -> Fault:
    """A second node joins, works, and is killed once a random number of records is there."""
    second, moment, gone = nodes.add_node(num_cpus=1), int(rng.integers(16, RECORDS - 48)), list[int]()

    def progress(event: Event) -> None:
        if event.done >= moment and not gone:
            gone.append(event.done)
            nodes.remove_node(second, allow_graceful=False)

    with reporting(progress):
        error = ended(lambda: where.instant(cluster=nodes.address).fill(by_cluster))
    return Fault(f"after {gone} records", error=error)


def certified(*more: str) -> list[str]:
    return [CLI, "certify", "model", "--n", "20000", "--seed", "0", "--max-images", "160", "--quiet", *more]


def driver_killed(work: Path, address: str, rng: np.random.Generator) -> int:
    """The driver of a run in the cluster is killed, a while after its first record; how many records are there then."""
    before = _records(work)
    child = subprocess.Popen(certified("--cluster", address, "-o", "run"), cwd=work, stdout=subprocess.DEVNULL)
    while child.poll() is None and _records(work) == before:
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 1))
    if child.poll() is None:
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return _records(work)


def _records(work: Path) -> int:
    times = work / "run" / "times.jsonl"
    return len(times.read_text().splitlines()) if times.exists() else 0


def killed_nodes(nodes: Any, work: Path) -> list[str]:
    rng, results = np.random.default_rng(0), list[tuple[str, str]]()
    with small_shards():
        where = place(work, RECORDS)
        for _ in range(NODES):
            clear(where.folder) if where.folder.exists() else None
            fault = node_killed(nodes, where, rng)
            whole = read_store(where.folder).complete
            result, why = judged(where, fault)
            results.append((result, f"{fault.words}: {why}; complete without another command: {whole}"))
    good = sum(result == "recovered" and told.endswith("True") for result, told in results)
    return [f"- nodes killed with SIGKILL in {NODES} runs of {RECORDS} records: complete, and equal byte for byte to "
            f"the run of one process, without another command in {good}",
            *(f"  - FAILED {result}: {told}" for result, told in results if result != "recovered")]


def killed_drivers(nodes: Any, work: Path) -> list[str]:
    def run(*arguments: str) -> float:
        started = time.perf_counter()
        subprocess.run(arguments, cwd=work, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    shards: Callable[[str], dict[str, bytes]] = lambda name: {  # noqa: E731
        path.name: path.read_bytes() for path in sorted((work / name).glob("*.parquet"))}
    run(CLI, "train", "--data", "digits", "--model", "mlp", "--sigma", "0.25", "--epochs", "3", "-q", "-o", "model")
    run(*certified("-o", "whole"))
    rng, second = np.random.default_rng(1), nodes.add_node(num_cpus=1)
    left = [driver_killed(work, nodes.address, rng) for _ in range(DRIVERS)]
    run(*certified("--cluster", nodes.address, "-o", "run"))
    nodes.remove_node(second)
    return [f"- `smoothcert certify` in the cluster of two nodes, its driver killed with SIGKILL {DRIVERS} times "
            f"(after {', '.join(map(str, left))} of 160 images), then started again: shards equal byte for byte to the "
            f"run of one process: {'yes' if shards('run') == shards('whole') != {} else 'NO'}"]


def main() -> str:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": sys.path[0]}  # workers read these runs there
    from ray.cluster_utils import Cluster

    work = fresh("cluster")
    nodes = Cluster(initialize_head=True, head_node_args={
        "num_cpus": 1, "include_dashboard": False, "_system_config": SOON_DEAD})
    try:
        lines = [*killed_nodes(nodes, work / "nodes"), *killed_drivers(nodes, work)]
    finally:
        nodes.shutdown()
    return "\n".join(["# A cluster that loses nodes and drivers\n", "Two Ray nodes on one machine, one worker each.\n",
                      *lines]) + "\n"
