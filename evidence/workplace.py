"""Where evidence works: its folder, the data it needs, and the command line on one processor thread."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

WORK = Path(__file__).parents[1] / "evidence-work"
CLI = str(Path(sys.executable).parent / "smoothcert")


def fresh(name: str) -> Path:
    """An empty folder."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def data_dir() -> Path:
    """Where the MNIST and CIFAR-10 parquet files are."""
    folder = Path(os.environ.get("SMOOTHCERT_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "mnist" / "test.parquet").is_file():
        raise SystemExit("needs the MNIST parquet files: set SMOOTHCERT_DATA_DIR")
    return folder


def run(*words: str) -> None:
    """Run `smoothcert` with those words, and raise where it fails."""
    subprocess.run([CLI, *words, "--threads", "1", "--quiet", "--data-dir", str(data_dir())], check=True,
                   stdout=subprocess.DEVNULL)
