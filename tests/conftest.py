"""One thread a test process: two of them run side by side, and results must not depend on it."""

import os
import signal
from contextlib import suppress

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():  # read where kernels are defined, Triton's own at its first import by whatever test
    os.environ["TRITON_INTERPRET"] = "1"
with suppress(ValueError):  # not the main thread
    # A shell starts what it runs in the background with Ctrl-C ignored, and the tests' children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _every_event(monkeypatch):
    """Callbacks get every event, so that a test may stop a run at any record."""
    monkeypatch.setattr("smoothcert.progress.reports.EVERY", 0.0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the MNIST and CIFAR-10 parquet files, where there is one."""
    folder = Path(os.environ.get("SMOOTHCERT_DATA_DIR") or Path(__file__).parents[2] / "shared" / "data")
    if not (folder / "mnist" / "test.parquet").is_file():
        pytest.skip("needs the MNIST and CIFAR-10 parquet files: set SMOOTHCERT_DATA_DIR")
    return folder
