"""Where evidence works: its folder, and the data it needs."""

import os
import shutil
from pathlib import Path

WORK = Path(__file__).parents[1] / "evidence-work"


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
