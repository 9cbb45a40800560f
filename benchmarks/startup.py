"""What a command costs before it has sampled much, beside the imports that nothing can spare and a build before.

Set SMOOTHCERT_BEFORE to another checkout to run its commands in the same rounds.
"""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import Section, section, table
from timing import Spread, spread

HERE = Path(__file__).parents[1]
ROUNDS = 9
IMPORTS = "import numpy, pyarrow.parquet, pydantic, scipy.special, torch, typer"


def main(figures: dict[str, float]) -> Section:
    before = os.environ.get("SMOOTHCERT_BEFORE")
    checkouts = {"this build": HERE, **({"the build before": Path(before)} if before else {})}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        seconds(HERE, ["-m", "smoothcert", "train", "--data", "digits", "--model", "mlp", "--sigma", "0.25",
                       "--epochs", "1", "-o", str(model), "-q"])
        rounds = []
        for number in range(ROUNDS + 1):  # the first compiles the sources
            order = sorted(checkouts, reverse=number % 2 == 1)
            taken = {name: seconds(checkouts[name], [
                "-m", "smoothcert", "certify", str(model), "--n", "100", "--max-images", "1",
                "-o", str(Path(folder) / f"{number} {name}"), "-q"]) for name in order}
            rounds.append({**taken, "imports alone": seconds(HERE, ["-c", IMPORTS])})
        rounds = rounds[1:]
    found = {name: spread([each[name] for each in rounds]) for name in rounds[0]}
    ratios: dict[str, Spread] = {name: spread([each["this build"] / each[name] for each in rounds])
                                 for name in found if name != "this build"}
    rows = [[name, f"{found[name]:.2f}", f"{ratios[name]:.2f}" if name in ratios else "1"] for name in found]
    lines = table(["what runs", "processor seconds", "this build takes, times that"], rows)
    lines += [f"`smoothcert certify MODEL --n 100 --max-images 1`, an MLP on the digits, as a process of its own; "
              f"medians of {ROUNDS} rounds, with the least and the greatest. The imports alone: `{IMPORTS}`."]
    return section("From the command to a first certificate, one thread", lines,
                   {f"startup over {name}": ratio.median for name, ratio in ratios.items()})


def seconds(checkout: Path, words: list[str]) -> float:
    """Return the processor seconds of a Python process that imports smoothcert from a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True)
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime
