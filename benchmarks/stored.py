"""What a certification run names: a network of the benchmarks as a factory, and random images in a file."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from networks import SHAPES, network
from PIL import Image
from torch import nn

LABELS = 10


def linear() -> nn.Module:
    return network("linear").model


def lenet() -> nn.Module:
    return network("lenet").model


def cnn() -> nn.Module:
    return network("cnn").model


def resnet110() -> nn.Module:
    return network("resnet110").model


def model_spec(name: str) -> str:
    """A network of this module, as `--model` takes it."""
    return f"{Path(__file__).resolve()}:{name}"


def random_images(name: str, n: int, folder: Path) -> str:
    """n images of the shape that a network takes, PNG-encoded in a file; the file as `--data` takes it."""
    channels, height, width = SHAPES[name]
    pixels = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    images = [{"bytes": _png(one.squeeze()), "path": None} for one in pixels]
    path = folder / "images.parquet"
    pq.write_table(pa.table({"image": images, "label": (np.arange(n) % LABELS).tolist()}), path)
    return f"parquet:{path}"


def _png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
