"""Labelled inputs for training and certification, in a fixed order: images in [0, 1], or tensors of any shape.

Nothing here imports torch, Pillow, pyarrow or scikit-learn before a data set that needs it is loaded; `augment`, which
needs torch, is in `smoothcert.data.augment`.
"""

from smoothcert.data.arrays import from_tensors
from smoothcert.data.base import ImageData, channel_statistics, even_places, select_indices, take_evenly
from smoothcert.data.load import KNOWN_SPECS, load_data
from smoothcert.data.named import DATA_DIR_VARIABLE

__all__ = ["DATA_DIR_VARIABLE", "KNOWN_SPECS", "ImageData", "channel_statistics", "even_places", "from_tensors",
           "load_data", "select_indices", "take_evenly"]
