"""Whether a data set holds the images of a store: shape, labels by the names of classes, and the hash of its images."""

import numpy as np

from smoothcert.data import ImageData
from smoothcert.errors import InputError
from smoothcert.store.manifest import images_at
from smoothcert.store.store import Store


def in_classes_of(store: Store, data: ImageData, advice: str = "give the data of the run") -> ImageData:
    """Return the data with the classes of a store, checked to hold the images of its run.

    Args:
        advice: what to do where they do not.
    Raises:
        InputError: they do not, or have other classes; it says what differs.
    """
    told = store.identity["data"]
    if list(data.shape) != list(told["shape"]):
        raise _other(store, data, f"those have shape {tuple(told['shape'])}, these {data.shape}: give the run's "
                                  f"--resize and --crop")
    data = data.with_classes(store.class_names, store.num_classes, str(store.folder), advice)
    index = store.column("index")
    if index.size and index.max() >= len(data):
        raise _other(store, data, f"image {index.max()} is among those, and here are {len(data)} images: {advice}")
    unlike = np.flatnonzero(data.labels[index] != store.column("label"))
    if len(unlike):
        image, label = index[unlike[0]], store.column("label")[unlike[0]]
        raise _other(store, data, f"they have other labels: image {image} is of class {data.class_names[label]} there "
                                  f"and of class {data.class_names[data.labels[image]]} here: {advice}")
    run = _run_indices(store)
    if run is not None and data.fingerprint(run) != told["sha256"]:
        raise _other(store, data, f"their labels are the same, but not their SHA-256, so the files or what is done to "
                                  f"them (--resize, --crop) are others: {advice}")
    return data


def _other(store: Store, data: ImageData, what: str) -> InputError:
    return InputError(f"{store.folder} is of other images than those of {data.name} ({data.split}): {what}")


def _run_indices(store: Store) -> np.ndarray | None:
    """The images of the whole run, in its order; None where only the data's hash knows them."""
    listed = images_at(store.identity, np.arange(store.identity["images"]["count"]))
    if listed is not None or not store.complete:
        return listed
    return np.array(list(dict.fromkeys(store.column("index").tolist())), dtype=np.int64)
