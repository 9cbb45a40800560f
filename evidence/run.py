"""The "shows" of every capability, at full cost: `python evidence/run.py [PART ...]` writes docs/results/PART.md."""

import importlib
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PARTS = ("coverage", "percentiles", "sequential", "linear", "invariance", "kills", "mnist", "fast", "networks",
         "cifar10", "attacks", "objectives", "newer_objectives", "denoisers", "distributional", "cluster", "cost",
         "mnist_later", "faults", "torchrun", "fuzz", "routing", "ensembles", "one_radius", "five_papers")
"""Modules beside this one; each has main() -> Markdown."""


def main(names: list[str]) -> None:
    if unknown := set(names) - set(PARTS):
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name in names or PARTS:
        started = time.perf_counter()
        page = importlib.import_module(name).main()
        page += f"\nWritten by `make evidence PART={name}` in {time.perf_counter() - started:.0f} s.\n"
        (RESULTS / f"{name.replace('_', '-')}.md").write_text(page, encoding="utf-8")
        print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
