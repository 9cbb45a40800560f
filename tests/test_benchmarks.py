"""The benchmark of a GPU, whose first run on one must not be its first run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.py"


@pytest.mark.slow
def test_the_gpus_benchmark_runs_on_a_cpu(tmp_path):
    """One line a finding, correctness before speed, JSON, and RESULTS.md left alone."""
    results = SCRIPT.with_name("RESULTS.md").read_bytes()
    done = subprocess.run([sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--json", str(tmp_path / "j")],
                          capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    findings = json.loads((tmp_path / "j").read_text())["findings"]
    lines = [line for line in done.stderr.splitlines() if line.count(" | ") >= 3]
    assert len(lines) == len(findings) > 20
    assert [line.split(" | ")[0] for line in lines] == [found["part"] for found in findings]
    assert list(dict.fromkeys(found["part"] for found in findings)) == [
        "switches", "noise bits", "vote kernel", "referee", "batches", "shortcuts", "out of memory", "copies",
        "noise rate", "host work", "rates", "kernels a batch", "compile", "batch trial", "workers",
        "training", "tests"]
    assert not [found for found in findings if found["passed"] is False]
    calls = next(found["words"] for found in findings if found["part"] == "host work")
    assert float(calls.split(", ")[1].split()[0]) <= 31 / 4, "a quarter of the 31 before rounds stayed on the device"
    assert f"0 of {len(findings)} findings are wrong." in done.stdout
    assert SCRIPT.with_name("RESULTS.md").read_bytes() == results
