"""Images of stores: a data set checked to hold those of a run, or given the attacked ones in place of its own."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from smoothcert.config.sampling import ATTACKED, RunConfig
from smoothcert.data import ImageData
from smoothcert.data.base import PixelSource
from smoothcert.data.load import KNOWN_SPECS
from smoothcert.errors import InputError, StoreError
from smoothcert.runs.options import PredictConfig
from smoothcert.store.adversaries import read_adversaries
from smoothcert.store.store import Store

AnyRun = TypeVar("AnyRun", bound=RunConfig)


@dataclass(frozen=True, eq=False)
class Attacked:
    """Attacked images under the indices of the clean ones.

    Attributes:
        data: the data set, with the attacked images in their places.
        index: (M,) of those.
        attack: its name and setting, for a store's identity.
    """

    data: ImageData
    index: np.ndarray
    attack: dict[str, Any]


class AttackedSource:
    """A PixelSource that gives other pixels for some images."""

    def __init__(self, clean: PixelSource, index: np.ndarray, images: np.ndarray):
        self._clean, self._images = clean, images
        self._rows = {int(i): row for row, i in enumerate(index)}
        self.shape, self.levels, self.preprocessing = clean.shape, clean.levels, clean.preprocessing
        self.where = clean.where

    def __len__(self) -> int:
        return len(self._clean)

    def pixels(self, indices: np.ndarray) -> np.ndarray:
        """(B, C, H, W) float32."""
        found = self._clean.pixels(indices)
        found = found.astype(np.float32) / np.float32(self.levels) if found.dtype == np.uint8 else found.copy()
        for place, index in enumerate(indices.tolist()):
            if index in self._rows:
                found[place] = self._images[self._rows[index]]
        return found

    def read_raw(self, index: int) -> bytes:
        """Return the float32 pixels of an attacked image, and other images as they are stored."""
        row = self._rows.get(index)
        return self._clean.read_raw(index) if row is None else self._images[row].astype("<f4").tobytes()


def with_settings_of(config: AnyRun, store: Store) -> AnyRun:
    """Return the options with sigma, data and split of a store, where they name none."""
    identity, changes = store.identity, dict[str, Any]()
    if config.sigma is None:
        changes["sigma"] = identity.noise.sigma
    if config.data is None and identity.data.name in KNOWN_SPECS:
        changes["data"] = identity.data.name
    if "split" not in config.model_fields_set:
        changes["split"] = identity.data.split
    return config.model_copy(update=changes)


def attacked_data(data: ImageData, config: PredictConfig, store: Store) -> Attacked:
    """The data set with the attacked images that `config` names.

    Raises:
        StoreError: `store` is no attack store, or keeps images of another shape. InputError: no or several
        such settings, or images of other data. FileError: it keeps no attacked images.
    """
    if store.kind != "attack":
        raise StoreError(f"{store.folder} is a {store.kind} store: adversaries takes an attack store")
    index, images = read_adversaries(store.folder, **config.setting)
    in_classes_of(store, data, "give the data and the split that were attacked")
    if images.shape[1:] != data.shape:
        raise StoreError(f"{store.folder} keeps attacked images of shape {images.shape[1:]}, but attacked images of "
                         f"shape {data.shape}: attack again into another folder")
    attack = store.identity.attack
    listed = {**{name: attack.raw[name] for name in ATTACKED if name in attack.raw}, **config.setting}
    setting = {name: value[0] if isinstance(value, list) else value for name, value in listed.items()}
    return Attacked(replace(data, source=AttackedSource(data.source, index, images)), index,
                    {"attack": attack.name, **setting})


def in_classes_of(store: Store, data: ImageData, advice: str = "give the data of the run") -> ImageData:
    """Return the data with the classes of a store, checked to hold the images of its run.

    Args:
        advice: what to do where they do not.
    Raises:
        InputError: they do not, or have other classes; it says what differs.
    """
    told = store.identity.data
    if list(data.shape) != told.shape:
        raise _other(store, data, f"those have shape {tuple(told.shape)}, these {data.shape}: give the run's "
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
    run = store.identity.images.at(np.arange(store.identity.images.count))
    if run is None and store.complete:
        run = np.array(list(dict.fromkeys(index.tolist())), dtype=np.int64)
    if run is not None and data.fingerprint(run) != told.sha256:
        raise _other(store, data, f"their labels are the same, but not their SHA-256, so the files or what is done to "
                                  f"them (--resize, --crop) are others: {advice}")
    return data


def _other(store: Store, data: ImageData, what: str) -> InputError:
    return InputError(f"{store.folder} is of other images than those of {data.name} ({data.split}): {what}")
