"""What figures were measured on, and the folder for what they leave behind."""

import os
import platform
import shutil
from pathlib import Path

import torch

WORK = Path(__file__).parents[1] / "evidence-work"


def machine() -> str:
    """Processor, cores and versions, in one line."""
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")] if Path("/proc/cpuinfo").exists() else [platform.processor()]
    return f"{names[0]}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


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
