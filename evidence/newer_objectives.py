"""smoothmix and cat-rs on MNIST beside Gaussian augmentation, after trainings that are short for all of them.

The recipe `mnist-objectives` trains for 6 epochs (`ROWS=gaussian,smoothmix,cat-rs make evidence PART=objectives`).
"""

import json

from objectives import MEANING, table
from workplace import WORK, run

from smoothcert.results.certified import Result
from smoothcert.store.provenance import machine_line
from smoothcert.store.store import read_store

EPOCHS, EVERY = 2, 100
OUT = WORK / "newer-objectives"
SETTINGS = ({"m": 2, "eta": 5, "steps": 2, "step_size": 2, "warmup": 1},
            {"m": 2, "lam": 1, "eps": 1, "steps": 2, "votes": 4})
"""Of smoothmix and of cat-rs."""


def main() -> str:
    smoothmix, cat_rs = ([f"--objective-option={key}={value}" for key, value in options.items()]
                         for options in SETTINGS)
    train("teacher", 0.25)
    train("gaussian", 0.5)
    train("smoothmix", 0.5, "--objective", "smoothmix", *smoothmix)
    train("cat-rs", 0.5, "--objective", "cat-rs", "--classifier", str(OUT / "teacher"), *cat_rs)
    rows = ("gaussian", "smoothmix", "cat-rs")
    for row in rows:
        run("certify", str(OUT / row), "--n0", "100", "--n", "10000", "--method", "cohen", "--every", str(EVERY),
            "--seed", "0", "--workers", "1", "-o", str(OUT / f"certified-{row}"))
    results = {row: Result.of(read_store(OUT / f"certified-{row}")) for row in rows}
    lines = [f"# SmoothMix and CAT-RS on MNIST: LeNet, sigma 0.5, {EPOCHS} epochs on the full training set for all\n",
             f"{machine_line()}. Seconds are the clock's, with whatever else ran.\n",
             f"Every {EVERY}th test image, n = 10,000, alpha = .001, method cohen. smoothmix: {told(SETTINGS[0])}. "
             f"cat-rs: {told(SETTINGS[1])}, with a network of {EPOCHS} epochs of Gaussian augmentation at sigma .25, "
             f"whose training is not counted. {MEANING}\n"]
    return "\n".join([*lines, *table(results, {row: seconds(row) for row in rows})]) + "\n"


def train(name: str, sigma: float, *options: str) -> None:
    run("train", "--data", "mnist", "--model", "lenet", "--sigma", str(sigma), "--epochs", str(EPOCHS), *options, "-o",
        str(OUT / name))


def seconds(name: str) -> float:
    """The seconds of a training's epochs."""
    return sum(json.loads(line)["seconds"] for line in (OUT / name / "metrics.jsonl").read_text().splitlines())


def told(options: dict[str, float]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())
