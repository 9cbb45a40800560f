"""Labelled images for training and certification, float32 in [0, 1], (C, H, W), in a fixed order.

`augment` (which needs torch) is in `smoothcert.data.augment`; nothing here imports torch, Pillow, pyarrow or
scikit-learn before a data set that needs it is loaded.
"""

from smoothcert.data.arrays import from_tensors
from smoothcert.data.base import ImageData
from smoothcert.data.load import KNOWN_SPECS, load_data
from smoothcert.data.named import DATA_DIR_VARIABLE
from smoothcert.data.select import select_indices, spaced, spaced_places
from smoothcert.data.statistics import channel_statistics

__all__ = ["DATA_DIR_VARIABLE", "KNOWN_SPECS", "ImageData", "channel_statistics", "from_tensors", "load_data",
           "select_indices", "spaced", "spaced_places"]
