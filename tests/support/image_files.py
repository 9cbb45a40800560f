"""Images and image files, as arrays, bytes and tables."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smoothcert.data import DATA_DIR_VARIABLE

STORED = Path(os.environ.get(DATA_DIR_VARIABLE) or Path(__file__).parents[3] / "shared" / "data")


def stored(name):
    if not (STORED / name).is_dir():
        pytest.skip(f"{name} is not in {STORED}; set {DATA_DIR_VARIABLE} to the folder that holds it")
    return STORED


def pixels(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def encode(array, format="PNG"):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format)
    return file.getvalue()


def hub_table(images, labels, image="image", label="label", names=None):
    """A table in the hub's layout; images: arrays, or bytes as they are."""
    content = [{"bytes": x if x is None or isinstance(x, bytes) else encode(x), "path": f"{i}.png"}
               for i, x in enumerate(images)]
    columns = {image: pa.array(content, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
               label: pa.array(labels)}
    table = pa.table(columns)
    if names is None:
        return table
    features = {"info": {"features": {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(features)})


def write(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), path)
    return path


def write_images(folder, images, suffix=".png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / f"{i}{suffix}")
    return sorted(folder.iterdir())


def on_grid(data, count=50):
    values = data.levels * data.batch(range(min(count, len(data)))).astype(np.float64)
    return np.abs(values - np.round(values)).max() < 2**-12
