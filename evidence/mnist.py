"""MNIST end to end by the commands a user would type: LeNet, 4 epochs of Gaussian augmentation, 200 test images."""

import json
import subprocess
import time

from workplace import CLI, data_dir, fresh

from smoothcert.store.provenance import machine_line

GOALS = {0.5: 94, 1.0: 84, 1.5: 49}


def main() -> str:
    work, data = fresh("mnist"), str(data_dir())
    train = ["train", "--data", "mnist", "--model", "lenet", "--objective", "gaussian", "--sigma", "0.5", "--epochs",
             "4", "-o", str(work / "M")]
    certify = ["certify", str(work / "M"), "--data", "mnist", "--sigma", "0.5", "--n0", "100", "--n", "10000",
               "--method", "cohen", "--every", "50", "--seed", "0", "-o", str(work / "S")]
    seconds = []
    for command in (train, certify):
        started = time.perf_counter()
        subprocess.run([CLI, *command, "--data-dir", data, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
    told = json.loads(subprocess.run(
        [CLI, "table", str(work / "S"), "--radii", "0.5,1,1.5", "--json"], check=True, capture_output=True, text=True,
    ).stdout)[0]
    lines = ["# MNIST, LeNet, Gaussian augmentation, sigma 0.5\n",
             f"{machine_line()}\n",
             f"`smoothcert {' '.join(train[:-1])} M`: {seconds[0]:.0f} s (goal: at most 300 s).",
             f"`smoothcert {' '.join(['certify', 'M', *certify[2:-1]])} S`: {seconds[1]:.0f} s.\n",
             "| radius | certified accuracy, % | goal |", "|---|---|---|"]
    for radius, accuracy in zip(told["radii"], told["accuracy"], strict=True):
        lines.append(f"| {radius:g} | {100 * accuracy:.1f} | {GOALS[radius]} |")
    lines.append(f"\nACR {told['acr']:.3f}, abstained {told['abstained']} of {told['images']} images.")
    return "\n".join(lines) + "\n"
