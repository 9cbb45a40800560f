"""Self-training: images without labels, labelled once by a model, trained on beside the labelled ones.

As in Carmon et al. 2019 (robust self-training) and Salman et al. 2019: a model, often one trained without noise, labels
the images by its argmax on them as they are, and training minimises

    mean loss of a labelled batch + w * mean loss of a pseudo-labelled batch,

both of the run's own objective and both of one size, so that an epoch takes as many unlabelled as labelled batches.
One optimiser step takes both, as in Carmon et al., whose batches are half and half. Salman et al.'s code instead gives
each batch a step of its own, labelled and pseudo-labelled ones in random order and the latter's loss times w.
Batches of the two kinds pass through the network one after the other, so BatchNorm normalises each by itself.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smoothcert.classes import match_classes
from smoothcert.classifiers.classifier import Classifier, model_card, open_classifier
from smoothcert.data import ImageData, select_indices, take_evenly
from smoothcert.data.load import open_data
from smoothcert.draws import seeded
from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.io.arrays import read_array, read_arrays
from smoothcert.io.files import write_whole
from smoothcert.progress import Progress
from smoothcert.smoothing import evaluation
from smoothcert.training.distributed import Ranks
from smoothcert.training.options import TrainConfig
from smoothcert.training.streams import Stream, read_ahead

FILE = "pseudo-labels.npz"
SUFFIXES = (".npy", ".npz")
"""Endings of files that hold labels."""
_BATCH = 256


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """The images of a run without labels, the model or the file that labels them, and the weight w of their loss.

    Attributes:
        places: (K,) the class of the run that each of the teacher's classes is.
    """

    data: ImageData
    indices: np.ndarray
    teacher: "Classifier | Labels"
    places: np.ndarray
    device: torch.device
    weight: float

    @property
    def identity(self) -> dict[str, Any]:
        """What of it determines the run's weights."""
        return {"data": self.data.name, "split": self.data.split, "count": len(self.indices),
                "sha256": self.data.fingerprint(self.indices), "labelled_by": self.teacher.identity,
                "weight": self.weight}

    def stream(self, folder: Path, ranks: Ranks, progress: Progress) -> Stream:
        """The images with their labels: those kept in `folder`, else made now by all processes and kept there.

        Raises FileError where the kept ones are corrupt.
        """
        path = folder / FILE
        kept = torch.tensor([path.exists()], device=self.device)
        ranks.spread([kept])
        if not kept:
            made = self._labels(ranks, progress)
            if ranks.is_main:
                _keep(path, self.indices, made)
        ranks.wait()
        labels = np.full(len(self.data), -1, dtype=np.int64)
        labels[self.indices] = _kept(path, self.indices)
        return Stream("pseudo", self.data, labels, self.indices, self.weight)

    def _labels(self, ranks: Ranks, progress: Progress) -> np.ndarray:
        """(M,) int64: the class of every image: the file's, or the model's on the clean image, which every process asks
        about its share of batches."""
        if isinstance(self.teacher, Labels):
            return self.teacher.labels
        labels = torch.zeros(len(self.indices), dtype=torch.int64, device=self.device)
        begins = range(ranks.rank * _BATCH, len(labels), ranks.world * _BATCH)
        with torch.no_grad(), evaluation(self.teacher.model):
            for begin, images in zip(begins, self._images(begins), strict=True):
                logits = torch.as_tensor(self.teacher.model(images.to(self.device)))
                labels[begin : begin + len(images)] = logits.argmax(dim=1)
                progress(0, len(labels), f"pseudo-labels {begin + len(images)} of {len(labels)}")
        return self.places[ranks.sum(labels).cpu().numpy()]

    def _images(self, begins: Sequence[int]) -> Iterator[torch.Tensor]:
        batches = [self.indices[i : i + _BATCH] for i in begins]
        return read_ahead(batches, lambda indices: torch.from_numpy(self.data.batch(indices)))


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
    """What `unlabelled` names, or None where it names nothing.

    Of the labelled data set itself, the images in `used` (trained on or held out) are left out.

    Raises:
        InputError: images of another shape than `data`, or none left. FileError, ModelError: the model that labels
        them is missing, or takes other images or has other classes.
    """
    if config.unlabelled is None or config.pseudo_labels is None:
        return None
    pool = open_data(config.unlabelled, config.unlabelled_split, data_dir=config.data_dir, resize=config.resize,
                     crop=config.crop, num_classes=config.num_classes)
    if pool.shape != data.shape:
        raise InputError(f"unlabelled: {config.unlabelled} has images of shape {pool.shape}, {config.data} of shape "
                         f"{data.shape}: use --resize and --crop, which go for both")
    indices = select_indices(len(pool))
    if (config.unlabelled, config.unlabelled_split) == (config.data, "train"):
        indices = np.setdiff1d(indices, used)
    if not len(indices):
        raise InputError(f"unlabelled: every image of {config.unlabelled} is trained on or held out: leave some over "
                         f"with --max-images, or take another set or split")
    indices = take_evenly(indices, config.max_unlabelled)
    if Path(config.pseudo_labels).suffix in SUFFIXES:
        teacher = _read_labels(Path(config.pseudo_labels), pool, indices, data.num_classes)
        places = np.arange(data.num_classes)
    else:
        teacher = open_teacher(config.pseudo_labels, config, data, device)
        places = _places(config.pseudo_labels, teacher, data)
    return Unlabelled(pool, indices, teacher, places, device, config.unlabelled_weight)


def _places(spec: str, teacher: Classifier, data: ImageData) -> np.ndarray:
    """(K,) int64: the class of the labelled data that each class of the model is. Raises InputError or ModelError."""
    if teacher.class_names is not None and data.named:
        return match_classes(data.class_names, teacher.class_names, data.name, spec,
                             "take a model that answers with classes of the data")
    if teacher.num_classes != data.num_classes:
        raise ModelError(f"{spec} has {teacher.num_classes} classes, the data set {data.num_classes}")
    return np.arange(data.num_classes)


def _read_labels(path: Path, pool: ImageData, indices: np.ndarray, num_classes: int) -> Labels:
    """The labels of the images at `indices`: a .npy file has one for each image of the whole set, in its order; a .npz
    file has `labels`, and of which images in `indices` where it is not of all.

    Raises:
        FileError: it is missing or corrupt. InputError: it lacks an image, or has labels that are no classes.
    """
    arrays = {"labels": read_array(path)} if path.suffix == ".npy" else read_arrays(path)
    if "labels" not in arrays:
        raise FileError(f"{path} has no array `labels`, but {', '.join(arrays) or 'none'}")
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
        raise InputError(f"pseudo-labels: {path} has {what} for image {wrong[0]} of {pool.name}, and {len(wrong)} such "
                         f"in all; labels are classes, 0 to {num_classes - 1}")
    return Labels(table[indices])


def open_teacher(spec: str, config: TrainConfig, data: ImageData, device: torch.device) -> Classifier:
    """Another model, to answer about images of `data` in training. Raises FileError or ModelError."""
    model_card(spec)
    with seeded(config.seed, "pseudo-labels"):
        return open_classifier(spec, data.shape, data.num_classes, weights=config.weights, trust=config.trust,
                               device=device, output=config.output)


def _keep(path: Path, indices: np.ndarray, labels: np.ndarray) -> None:
    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.savez_compressed(file, indices=indices, labels=labels)

    write_whole(path, write)


def _kept(path: Path, indices: np.ndarray) -> np.ndarray:
    """The labels kept for `indices`; the archive's checksums find damage."""
    try:
        kept = read_arrays(path)
        if not np.array_equal(kept["indices"], indices):
            raise FileError("they belong to other images")
        if kept["labels"].dtype.kind != "i" or kept["labels"].shape != indices.shape:
            raise FileError("they are no labels")
    except (FileError, KeyError) as error:
        raise FileError(f"the pseudo-labels {path} are missing or corrupt: {error}; delete the file to have them made "
                        f"again") from None
    return kept["labels"]
