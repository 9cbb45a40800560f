"""`make bench`: measures, writes benchmarks/RESULTS.md and prints it; parts alone: python benchmarks/run.py speed."""

import importlib
import os
import sys
import time

PARTS = ("speed", "precisions", "certify_time", "published", "processes", "memory", "cost", "noise_rate", "opening",
         "training", "epochs", "denoisers", "records", "clients", "startup", "claims")
"""Modules beside this one; each has main(figures of all sections so far) -> Section."""

def main(names: list[str]) -> None:
    if unknown := set(names) - set(PARTS):
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the libraries that the parts import
    from goals import write_results
    from ours import set_up
    from pages import read_sections

    set_up()
    sections, text = read_sections(), ""
    for name in names or PARTS:
        started = time.perf_counter()
        figures = {key: value for found in sections.values() for key, value in found.figures.items()}
        sections[name] = importlib.import_module(name).main(figures)
        sections = {key: sections[key] for key in (*PARTS, "gpu", "quantisers") if key in sections}
        text = write_results(sections)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
