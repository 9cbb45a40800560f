"""What a GPU is worth, in nine minutes: `python benchmarks/gpu.py --json gpu.json`; writes its section of RESULTS.md.

Correctness first, then speed, the cheapest first: one line a finding, at once, so that what time cuts off is the least.
To see that the script runs, without a GPU and without writing: `python benchmarks/gpu.py --device cpu --quick`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gpu_checks
import gpu_commands
import gpu_rates
import torch
from goals import write_results
from gpu_setting import Finding, Setting
from ours import set_up
from pages import Section, read_sections, section, table

from smoothcert.store.provenance import machine_line

Part = Callable[[Setting], list[Finding]]

PARTS: dict[str, tuple[float, Part]] = {
    "switches": (5, gpu_checks.check_switches),
    "noise bits": (40, gpu_checks.check_noise),
    "vote kernel": (10, gpu_checks.check_votes),
    "referee": (20, gpu_checks.check_referee),
    "batches": (60, gpu_checks.check_batches),
    "shortcuts": (40, gpu_checks.check_shortcuts),
    "out of memory": (20, gpu_checks.check_memory),
    "copies": (10, gpu_rates.measure_copies),
    "noise rate": (20, gpu_rates.measure_noise),
    "host work": (10, gpu_rates.measure_host),
    "rates": (150, gpu_rates.measure_networks),
    "kernels a batch": (30, gpu_rates.profile_batches),
    "compile": (60, gpu_rates.measure_compile),
    "batch trial": (30, gpu_rates.measure_trial),
    "workers": (60, gpu_commands.check_workers),
    "training": (30, gpu_commands.check_training),
    "tests": (60, gpu_commands.run_tests),
}
"""What is looked at, in this order, with the seconds that it may take on a GPU; what no longer fits is left out."""

_SECONDS = 530.0


@dataclass
class Told:
    """Findings as they come, printed one line each."""

    findings: list[Finding] = field(default_factory=list)

    def add(self, found: Finding) -> None:
        self.findings.append(found)
        print(found.line, file=sys.stderr, flush=True)

    @property
    def section(self) -> Section:
        rows = [[found.part, found.name, found.verdict, found.words] for found in self.findings]
        figures = {name: value for found in self.findings for name, value in found.figures.items()}
        wrong = sum(found.passed is False for found in self.findings)
        lines = [*table(["part", "finding", "", "measured"], rows), *NOTES,
                 f"{wrong} of {len(self.findings)} findings are wrong.", ""]
        return section("GPU", lines, figures, self.machine)

    machine: str = ""


NOTES = [
    "Rates are end to end, by the clock, medians of interleaved rounds. `reference`: one image, batches of 1,000, "
    "counting on the host, as torch runs it by default (TF32 in convolutions). smoothcert: grid noise. `tf32`, `bf16` "
    "and `fp16` are other base classifiers, certified as such.", "",
]


def run_parts(setting: Setting, names: list[str], told: Told) -> None:
    """Look at each part, while there is time; an error is a finding, so that it does not cost the rest."""
    for name in names:
        seconds, look = PARTS[name]
        if setting.left < (0 if setting.quick else seconds):
            told.add(Finding(name, "left out", None, f"{setting.left:.0f} s are left, {seconds:.0f} s are needed"))
            continue
        started = time.perf_counter()
        try:
            found = look(setting)
        except Exception as error:
            found = [Finding(name, "ran", False, f"{type(error).__name__}: {str(error)[:200]}")]
        for one in found:
            one.part = name
            told.add(one)
        print(f"  {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small numbers and networks, RESULTS.md left alone")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="after which nothing new is started")
    parser.add_argument("--json", type=Path, help="also write the findings there")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS), metavar="PART")
    asked = parser.parse_args(arguments)
    set_up()
    device = torch.device(asked.device)
    card = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    told = Told(machine=card + machine_line())
    run_parts(Setting(device, asked.quick, time.perf_counter() + asked.seconds), asked.parts, told)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": told.machine, "findings": [
            vars(found) for found in told.findings]}, indent=1))
    if not asked.quick:
        write_results({**read_sections(), "gpu": told.section})
    print(told.section.text)
    return int(any(found.passed is False for found in told.findings))


if __name__ == "__main__":
    sys.exit(main())
