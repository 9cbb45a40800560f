"""Networks trained a little, under noise, by the project's own loop: MNIST where it is told, else digits enlarged."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from networks import CLASSES, SIGMA
from ours import CACHE
from torch import nn

from smoothcert.classifiers.folder import read_network
from smoothcert.data import DATA_DIR_VARIABLE, ImageData, load_data
from smoothcert.models import load_model
from smoothcert.quantisation.options import QuantiseConfig
from smoothcert.quantisation.quantise import INTEGER, quantise
from smoothcert.training.options import TrainConfig
from smoothcert.training.train import train

_IMAGES = {"linear": 30_000, "lenet": 20_000, "cnn": 10_000}
"""Training images in all epochs together, for well under a minute."""


def data_options() -> dict[str, Any]:
    """MNIST from the folder that SMOOTHCERT_DATA_DIR names, else digits of its size."""
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if folder and (Path(folder) / "mnist" / "train.parquet").is_file():
        return {"data": "mnist"}
    return {"data": "digits", "resize": 28}


def trained_folder(name: str) -> Path:
    """The model folder of a trained network: trained now, or found where an earlier run left it."""
    data = data_options()
    fit = len(load_data(data["data"], "train", resize=data.get("resize")))
    shown = min(fit, _IMAGES[name])
    options = {**data, "model": name, "sigma": SIGMA, "epochs": max(1, round(_IMAGES[name] / shown)),
               "max_images": shown, "batch_size": 64, "validation": 0.05, "threads": 1, "seed": 0,
               "lr": 0.02 if name == "linear" else 0.05}
    told = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:12]
    folder = CACHE / f"{name}-{told}"
    train(TrainConfig.parse({**options, "out": folder}))
    return folder


def trained(name: str) -> nn.Module:
    """A trained network, in eval mode."""
    return read_network(trained_folder(name))[0].eval()


def quantised(name: str) -> Callable[..., Any]:
    """A trained network in int8 by the project's own `quantise`, calibrated under noise and run by OpenVINO."""
    source = trained_folder(name)
    folder = source.with_name(f"{source.name}-int8")
    if not folder.is_dir():
        quantise(QuantiseConfig.parse({"model": str(source), "sigma": SIGMA, "out": folder}))
    return load_model(str(folder / INTEGER), num_classes=CLASSES, runtime="openvino").model


def test_images(n: int) -> tuple[np.ndarray, np.ndarray]:
    """At most n test images (N, C, H, W), evenly spaced over the set, and their labels."""
    options = data_options()
    data: ImageData = load_data(options["data"], "test", resize=options.get("resize"))
    chosen = np.linspace(0, len(data) - 1, min(n, len(data))).round().astype(int)
    return data.batch(chosen.tolist()), data.labels[chosen]
