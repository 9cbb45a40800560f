"""Attacks on a trained model: m against the base classifier's attack, n, and multiples of the certified radius."""

import json
import subprocess
import time
from typing import Any

from workplace import CLI, WORK, data_dir

from smoothcert.store.provenance import machine_line

TRAIN = "--data mnist --model lenet --sigma 0.5 --epochs 6 --threads 1"
CERTIFY = "--n0 100 --n 10000 --method cohen --every 100 --seed 0"
STRENGTH = "--eps 1.5,2 --m 0,1,8,32,128 --steps 20 --n 100,1000 --every 100 --seed 0 --threads 1"
TIGHTNESS = "--times 0.5,0.8,0.95,1,1.5,2 --m 32 --steps 20 --n 1000 --seed 0 --threads 1"


def main() -> str:
    """Everything resumes: the folders are kept from run to run."""
    work = WORK / "attacks"
    work.mkdir(parents=True, exist_ok=True)
    lines = ["# Attacks on MNIST, LeNet, Gaussian augmentation, sigma 0.5\n", f"{machine_line()}\n"]
    run("train", "-o", work / "M", *TRAIN.split())
    run("certify", work / "M", "-o", work / "S", *CERTIFY.split())
    strength, seconds = run("attack", work / "M", "-o", work / "A", "--certified", work / "S", *STRENGTH.split())
    lines += [f"`smoothcert attack M {STRENGTH}` ({seconds:.0f} s in this run), S by `certify M {CERTIFY}`:\n",
              *strength_table(strength), "", *orders(strength), ""]
    tight, seconds = run("attack", work / "M", "-o", work / "T", "--eps-from", work / "S", *TIGHTNESS.split())
    lines += [f"`smoothcert attack M --eps-from S {TIGHTNESS}` ({seconds:.0f} s in this run):\n",
              "| times the radius | images | changed, % | abstained, % |", "|---|---|---|---|"]
    lines += [f"| {row['size']:g} | {row['images']} | {100 * row['changed']:.1f} | {100 * row['abstained']:.1f} |"
              for row in tight["outcomes"] if row["size"] > 0]
    lines += ["", inside("eps", strength), inside("multiples of the radius", tight)]
    return "\n".join(lines) + "\n"


def run(verb: str, *words: Any) -> tuple[dict[str, Any], float]:
    """A verb's answer, as JSON, and its seconds."""
    command = [CLI, verb, *map(str, words), "--data-dir", str(data_dir()), "--json", "--quiet"]
    started = time.perf_counter()
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told), time.perf_counter() - started


def strength_table(told: dict[str, Any]) -> list[str]:
    """Empirical accuracy by eps and m, and certified accuracy beside it."""
    columns = [(m, n) for m in (0, 1, 8, 32, 128) for n in (100, 1000)]
    found = {(row["size"], row["m"], row["n"]): row["accuracy"] for row in told["outcomes"]}
    certified = {row["size"]: row["certified"] for row in told["certified"]["rows"]}
    lines = ["Empirical accuracy, %, by m and n of PREDICT (m = 0: the base classifier is attacked):\n",
             "| eps | certified | " + " | ".join(f"m {m}, n {n}" for m, n in columns) + " |",
             "|---" * (2 + len(columns)) + "|"]
    for eps in sorted({size for size, *_ in found if size > 0}):
        cells = [f"{100 * found[eps, m, n]:.1f}" for m, n in columns]
        lines.append(f"| {eps:g} | {100 * certified[eps]:.1f} | " + " | ".join(cells) + " |")
    clean = [f"{100 * row['accuracy']:.1f} (n {row['n']})" for row in told["outcomes"] if row["size"] == 0]
    return [*lines, "", f"Without attack: {', '.join(clean)}."]


def orders(told: dict[str, Any]) -> list[str]:
    """What the table should show: accuracy falls as m grows, and below that of the base classifier's attack."""
    def mean(m: int) -> float:
        rows = [row["accuracy"] for row in told["outcomes"] if row["size"] > 0 and (row["m"], row["n"]) == (m, 1000)]
        return 100 * sum(rows) / len(rows)

    means = {m: mean(m) for m in (0, 1, 8, 32, 128)}
    words = ", ".join(f"m {m}: {value:.2f}" for m, value in means.items())
    falls = all(means[a] >= means[b] for a, b in ((1, 8), (8, 32), (32, 128)))
    return [f"Mean over eps at n = 1,000: {words}. Accuracy falls as m grows: {'yes' if falls else 'NO'}; m = 128 is "
            f"stronger than the base classifier's attack: {'yes' if means[128] < means[0] else 'NO'}."]


def inside(axis: str, told: dict[str, Any]) -> str:
    """Attacks that lie inside a certified radius."""
    found = told["certified"]["violations"]
    return (f"By {axis}: {found['pairs']} attacked images lie inside their certified radius, {found['changed']} "
            f"changed the answer (at most {found['expected']:.3g} expected from alpha).\n")
