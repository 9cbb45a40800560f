"""SIGKILL at ten random moments, then the same command: byte for byte the shards of an uninterrupted run."""

import json
import os
import signal
import subprocess
import time

import numpy as np
from workplace import CLI, fresh


def run(*arguments: str) -> None:
    subprocess.run([CLI, *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def main() -> str:
    work = fresh("kills")
    run("train", "--data", "digits", "--model", "mlp", "--sigma", "0.25", "--epochs", "5", "-o", str(work / "m"))
    certify = ["certify", str(work / "m"), "--n", "20000", "--seed", "0"]
    started = time.perf_counter()
    run(*certify, "-o", str(work / "whole"))
    seconds = time.perf_counter() - started
    rng, kills, progress = np.random.default_rng(0), 0, []
    for _ in range(10):
        child = subprocess.Popen([CLI, *certify, "--quiet", "-o", str(work / "killed")], stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.5, 4.0 + 0.06 * seconds))
        if child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            kills += 1
        child.wait()
        times = work / "killed" / "times.jsonl"
        progress.append(len(times.read_text().splitlines()) if times.exists() else 0)
    run(*certify, "-o", str(work / "killed"))
    shards = {name: {p.name: p.read_bytes() for p in sorted((work / name).glob("*.parquet"))}
              for name in ("whole", "killed")}
    images = json.loads((work / "killed" / "manifest.json").read_text())["identity"]["images"]["count"]
    finished = len((work / "killed" / "times.jsonl").read_text().splitlines())
    equal = "yes" if shards["whole"] == shards["killed"] else "NO"
    return "\n".join([
        "# Killed at random moments\n",
        f"359 test digits, n = 20,000, an uninterrupted run takes {seconds:.0f} s. The same run killed with SIGKILL "
        f"{kills} times, then finished:\n",
        f"- shards equal byte for byte to the uninterrupted run: {equal} ("
        f"{len(shards['whole'])} shards)",
        f"- images finished over all runs: {finished} for {images} records, so {finished - images} finished image(s) "
        f"were done again (at most one a kill can be lost between its record and its time)",
        f"- images finished when each kill came: {', '.join(map(str, progress))}",
    ]) + "\n"
