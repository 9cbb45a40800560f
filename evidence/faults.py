"""Faults injected into runs one at a time: what was lost, what was silently wrong, and what the same command did."""

import sys
from collections import Counter
from functools import partial
from pathlib import Path

from workplace import fresh

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from faulting import KINDS, OUTCOMES, Outcome, Place, injected, place, small_shards
from smoothcert.runs.certify import certify
from smoothcert.runs.options import CertifyConfig
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train
from steps import can_mount

TIMES = {
    "driver killed": 60, "worker killed": 4, "disk full": 120, "small disk full": 30, "crash at a step": 90,
    "byte changed": 60, "file cut": 30, "file removed": 20, "byte changed under way": 30, "file cut under way": 20,
    "file removed under way": 20,
}
"""Runs of each kind, with records that need no network. Every run of "worker killed" has several kills."""

NETWORK_TIMES = {"driver killed": 15, "crash at a step": 15, "disk full": 10}
"""Runs over digits with a small network."""


def network_place(home: Path) -> Place:
    """Runs of `certify` over 40 digits, and one that nothing happened to."""
    home.mkdir()
    train(TrainConfig.parse({"data": "digits", "model": "mlp", "sigma": 0.25, "epochs": 3, "batch_size": 64,
                               "threads": 1, "out": home / "model"}))
    options = {"model": str(home / "model"), "n": 500, "seed": 0, "max_images": 40, "threads": 1, "engine": "plain"}
    certify(CertifyConfig.parse({**options, "out": home / "truth"}))
    return Place(home / "faulty", home / "truth",
                 lambda out: certify(CertifyConfig.parse({**options, "out": out})))


def table(rows: dict[str, list[Outcome]]) -> list[str]:
    """A line for each kind: injections, and how many ended in each way."""
    lines = [f"| kind | injected | {' | '.join(OUTCOMES)} |", "|---|" + "---|" * (1 + len(OUTCOMES))]
    total: Counter[str] = Counter()
    for name, outcomes in rows.items():
        counts = Counter(dict.fromkeys(OUTCOMES, 0))
        for outcome in outcomes:
            counts[outcome.result] += outcome.times
        total += counts
        lines.append(f"| {name} | {counts.total()} | {' | '.join(str(counts[result]) for result in OUTCOMES)} |")
    lines.append(f"| all | {total.total()} | {' | '.join(str(total[result]) for result in OUTCOMES)} |")
    return lines


def main() -> str:
    work = fresh("faults")
    rows: dict[str, list[Outcome]] = {}
    with small_shards():
        synthetic, network = place(work / "synthetic", 40), network_place(work / "network")
        for kind in KINDS:
            if kind in TIMES and (kind != "small disk full" or can_mount()):
                rows[kind] = list(map(partial(injected, kind, synthetic), range(TIMES[kind])))
        for kind, times in NETWORK_TIMES.items():
            rows[f"{kind}, with a network"] = list(map(partial(injected, kind, network), range(times)))
    bad = [outcome.words for outcomes in rows.values() for outcome in outcomes
           if outcome.result not in ("recovered", "loud")]
    return "\n".join([
        "# Faults\n",
        "Each injection is one fault in one run over 40 images (shards of 16), at a random moment, in a random file "
        "and place. Afterwards the store is read, and the same command is run again.\n",
        *table(rows),
        "",
        "- recovered: the same command ended with shards equal byte for byte to those of a run that nothing happened "
        "to",
        "- loud: an error of smoothcert's own named the file (or said that the disk is full); with the file put back, "
        "or space, the same command ended with those bytes",
        "- lost: the store said that it is complete, and a record was missing",
        "- silently wrong: a record or the identity was read that is not the true one, without an error",
        "- crashed: any other error\n",
        "A full disk stays full from a random write on, half of which gets through; a crash comes right before, within "
        "or right after a random write, fsync, rename or removal; the small disk is a file system of 4 to 44 kB. Files "
        "are shards, manifest, journal and times; of a run that ended, that was stopped, or under way.\n",
        *(f"- FAILED: {words}" for words in bad),
    ]) + "\n"
