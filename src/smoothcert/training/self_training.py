"""Self-training on images without labels, which a model labels once, beside the labelled images.

As in Carmon et al. 2019 (robust self-training) and Salman et al. 2019: a model, often trained without noise, labels
each image by its argmax on the clean image, and training minimises

    mean loss of a labelled batch + w * mean loss of a pseudo-labelled batch,

both of the run's own objective and of the same size, so that an epoch takes as many unlabelled as labelled batches.
One optimiser step takes both, as in Carmon et al., whose batches are half and half. Salman et al.'s code instead takes
a step for each batch, in random order, with w times the loss for pseudo-labelled batches. The two batches pass through
the network one after the other, so BatchNorm normalises each by itself.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classes import match_classes
from smoothcert.classifiers.classifier import Classifier, model_card, open_classifier
from smoothcert.config.model import ModelConfig
from smoothcert.data import ImageData, select_indices, take_evenly
from smoothcert.data.load import open_data
from smoothcert.draws import seed_torch
from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.io.arrays import read_array, read_arrays
from smoothcert.io.files import write_whole
from smoothcert.io.paths import is_weights_file
from smoothcert.progress import phase
from smoothcert.smoothing import evaluation
from smoothcert.training.batches import TrainingSet, read_ahead
from smoothcert.training.distributed import Ranks
from smoothcert.training.options import TrainConfig

FILE = "pseudo-labels.npz"
SUFFIXES = (".npy", ".npz")
"""Endings of files that hold labels."""
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """A run's images without labels, the model or file that labels them, and the weight w of their loss.

    Attributes:
        places: (K,) the run's class for each of the teacher's classes.
    """

    data: ImageData
    indices: np.ndarray
    teacher: "Classifier | Labels"
    places: np.ndarray
    device: torch.device
    weight: float

    @property
    def identity(self) -> dict[str, Any]:
        """The part of the run's identity that these images and their labels determine."""
        return {"data": self.data.name, "split": self.data.split, "count": len(self.indices),
                "sha256": self.data.fingerprint(self.indices), "labelled_by": self.teacher.identity,
                "weight": self.weight}

    def label(self, folder: Path, ranks: Ranks) -> TrainingSet:
        """Return the images with the labels stored in `folder`; where there are none, all processes make them first.

        Raises FileError where the stored labels are corrupt.
        """
        path = folder / FILE
        stored = torch.tensor([path.exists()], device=self.device)
        ranks.broadcast([stored])
        if not stored:
            made = self._make_labels(ranks)
            if ranks.is_main:
                with io.BytesIO() as content:
                    np.savez_compressed(content, indices=self.indices, labels=made)
                    write_whole(path, lambda temporary: temporary.write_bytes(content.getvalue()))
        ranks.wait()
        labels = np.full(len(self.data), -1, dtype=np.int64)
        labels[self.indices] = _read_stored(path, self.indices)
        return TrainingSet("pseudo", self.data, labels, self.indices, self.weight)

    def _make_labels(self, ranks: Ranks) -> np.ndarray:
        """Return the class of every image, (M,) int64: the file's, or the model's on the clean image; each process
        labels its share of the batches."""
        if isinstance(self.teacher, Labels):
            return self.teacher.labels
        labels = torch.zeros(len(self.indices), dtype=torch.int64, device=self.device)
        begins = range(ranks.rank * _BATCH, len(labels), ranks.world * _BATCH)
        share = sum(len(self.indices[i : i + _BATCH]) for i in begins)
        with torch.no_grad(), evaluation(self.teacher.model), phase("labelling", share, "images") as labelling:
            batches = [self.indices[i : i + _BATCH] for i in begins]
            read = read_ahead(batches, lambda indices: torch.from_numpy(self.data.batch(indices)))
            for begin, images in zip(begins, read, strict=True):
                logits = torch.as_tensor(self.teacher.model(images.to(self.device)))
                labels[begin : begin + len(images)] = logits.argmax(dim=1)
                labelling.advance(len(images))
        return self.places[ranks.sum(labels).cpu().numpy()]


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels (M,) int64 of the unlabelled images, from a file."""

    labels: np.ndarray

    @property
    def identity(self) -> dict[str, str]:
        return {"by": "file", "sha256": hashlib.sha256(self.labels.astype("<i8").tobytes()).hexdigest()}


def open_unlabelled(
    config: TrainConfig, data: ImageData, used: np.ndarray, device: torch.device
) -> Unlabelled | None:
    """Open the images of option `unlabelled`, with what labels them; None without the option.

    Images in `used` (trained on or held out) are left out where they come from the labelled data set itself.

    Raises:
        InputError: images of another shape than `data`, or none left. FileError, ModelError: the model that labels
        them is missing, takes other images or has other classes.
    """
    if config.unlabelled is None or config.pseudo_labels is None:
        return None
    pool = open_data(config.unlabelled, config.unlabelled_split, data_dir=config.data_dir,
                     num_classes=config.num_classes, **config.reading)
    if pool.shape != data.shape:
        raise InputError(f"unlabelled: {config.unlabelled} has images of shape {pool.shape}, but {config.data} of "
                         f"shape {data.shape}: use --resize and --crop, which apply to both")
    indices = select_indices(len(pool))
    if (config.unlabelled, config.unlabelled_split) == (config.data, "train"):
        indices = np.setdiff1d(indices, used)
    if not len(indices):
        raise InputError(f"unlabelled: every image of {config.unlabelled} is trained on or held out: leave some over "
                         f"with --max-images, or use another set or split")
    indices = take_evenly(indices, config.max_unlabelled)
    spec, places = config.pseudo_labels, np.arange(data.num_classes)
    if Path(spec).suffix in SUFFIXES:
        teacher = _read_labels(Path(spec), pool, indices, data.num_classes)
    else:
        teacher = open_teacher(spec, config, data, device)
        places = match_teacher(spec, teacher, data)
    return Unlabelled(pool, indices, teacher, places, device, config.unlabelled_weight)


def _read_labels(path: Path, pool: ImageData, indices: np.ndarray, num_classes: int) -> Labels:
    """Read the labels of the images at `indices`.

    A .npy file has a label for each image of the whole set, in its order; a .npz file has `labels`, and the images that
    they belong to in `indices` where these are not all.

    Raises:
        FileError: the file is missing or corrupt. InputError: it lacks an image, or has labels that are not classes.
    """
    arrays = {"labels": read_array(path)} if path.suffix == ".npy" else read_arrays(path)
    if "labels" not in arrays:
        raise FileError(f"{path} has no array `labels`; its arrays: {', '.join(arrays) or 'none'}")
    labels, of = arrays["labels"], arrays.get("indices", np.arange(len(pool)))
    if labels.ndim != 1 or {labels.dtype.kind, of.dtype.kind} - {"i", "u"} or labels.shape != of.shape:
        raise InputError(f"pseudo-labels: {path} must hold a whole number for each of {len(of)} images of {pool.name}, "
                         f"got {labels.dtype} of shape {labels.shape}")
    table = np.full(len(pool), -1, dtype=np.int64)
    known = (of >= 0) & (of < len(pool))
    table[of[known]] = labels[known]
    wrong = indices[(table[indices] < 0) | (table[indices] >= num_classes)]
    if len(wrong):
        what = "no label" if table[wrong[0]] < 0 else f"label {table[wrong[0]]}"
        raise InputError(f"pseudo-labels: {path} has {what} for image {wrong[0]} of {pool.name} ({len(wrong)} such "
                         f"images in all); labels are classes, 0 to {num_classes - 1}")
    return Labels(table[indices])


def open_teacher(spec: str, config: TrainConfig, data: ImageData, device: torch.device) -> Classifier:
    """Open another model, which training asks about images of `data`. Raises FileError, InputError or ModelError."""
    if is_weights_file(spec):
        raise InputError(f"{spec} holds weights alone, but a whole model is needed here: give a model directory, or a "
                         f"factory that loads these weights (file.py:factory)")
    asked = ModelConfig.parse({"model": spec, "weights": config.weights, "trust": config.trust})
    model_card(asked)
    with seed_torch(config.seed, "pseudo-labels"):
        return open_classifier(asked, data.shape, data.num_classes, device=device, output=config.output,
                               bounds=data.bounds)


def match_teacher(spec: str, teacher: Classifier, data: ImageData) -> np.ndarray:
    """Return the data's class for each of the other model's classes, (K,) int64. Raises InputError or ModelError where
    they do not match."""
    if teacher.class_names is not None and data.named:
        return match_classes(data.class_names, teacher.class_names, data.name, spec,
                             "use a model that answers with classes of the data")
    if teacher.num_classes != data.num_classes:
        raise ModelError(f"{spec} has {teacher.num_classes} classes, but the data set has {data.num_classes}")
    return np.arange(data.num_classes)


def _read_stored(path: Path, indices: np.ndarray) -> np.ndarray:
    """Return the stored labels of `indices`; the archive's checksums reveal damage."""
    try:
        stored = read_arrays(path)
        if not np.array_equal(stored["indices"], indices):
            raise FileError("they belong to other images")
        if stored["labels"].dtype.kind != "i" or stored["labels"].shape != indices.shape:
            raise FileError("they are not labels")
    except (FileError, KeyError) as error:
        raise FileError(f"the pseudo-labels {path} are missing or corrupt: {error}; delete the file to have them made "
                        f"again") from None
    return stored["labels"]
