"""What a denoiser did in a run: its images denoised, where it made radii smaller, how it contracts noise."""

from dataclasses import dataclass

import numpy as np

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.results.base import check_records, check_same_data
from smoothcert.results.certified import Result
from smoothcert.results.estimates import Contraction, Denoised, Estimates, contraction_and_slide, denoised, noisy_copies
from smoothcert.results.gallery import ImagesOf, gallery_of
from smoothcert.results.panels import noisy_copy
from smoothcert.store.recertify import noise_of
from smoothcert.store.store import Store


@dataclass(frozen=True)
class Captioned:
    """Denoised images, and a caption for each."""

    data: Denoised
    words: tuple[str, ...]


@dataclass(frozen=True)
class Failures:
    """Images that the first run certifies at a larger radius than the second (Saremi & Srivastava 2020, Fig. 4).

    Attributes:
        names: of the two runs.
        count, of: how many such images there are, and how many the runs share.
        index, first, second: (G,) those shown, the largest difference first, and their radii; 0 for a wrong answer.
        words: (G,) their classes.
        clean, noisy: (G, C, H, W), the noisy ones as the second run drew them.
        estimates: the noisy ones denoised, or None.
    """

    names: tuple[str, str]
    count: int
    of: int
    index: np.ndarray
    first: np.ndarray
    second: np.ndarray
    words: tuple[str, ...]
    clean: np.ndarray
    noisy: np.ndarray
    estimates: np.ndarray | None


@dataclass(frozen=True)
class Contracted:
    """Contraction and slide of images of a run, and which of them it answered rightly, or not at all; (M,) each."""

    data: Contraction
    right: np.ndarray
    abstained: np.ndarray
    dimension: int


def denoised_gallery(store: Store, images_of: ImagesOf, how: Estimates, count: int) -> Captioned:
    """At most `count` images of a certify store, evenly spaced in the order of their radius, as `gallery_of` has them.

    Raises what `gallery_of` does.
    """
    found = gallery_of(store, images_of, count)
    return Captioned(denoised(found.clean, found.noisy, how, noise_of(store).sigma),
                     tuple(found.words(k) for k in range(len(found.clean))))


def denoised_copies(store: Store, image: np.ndarray, key: int, how: Estimates, count: int) -> Captioned:
    """The first `count` noisy copies of one image (C, H, W) of a store, whose index is `key`."""
    noise = noise_of(store)
    noisy = noisy_copies(image, noise, check_count("count", count), int(store.identity["seed"]), key, "estimate")
    return Captioned(denoised(image, noisy, how, noise.sigma), tuple(f"copy {k + 1}" for k in range(count)))


def failures_of(
    first: tuple[Store, str], second: tuple[Store, str], images_of: ImagesOf, how: Estimates | None, count: int
) -> Failures:
    """At most `count` of the images that the first store certifies at a larger radius than the second.

    Raises:
        InputError: the stores are of different data sets, share no image, or hold radii that are lower bounds only.
    """
    one, two = Result.of(*first), Result.of(*second)
    check_same_data([one, two])
    for run in (one, two):
        if run.is_lower_bound:
            raise InputError(f"{run.name} stopped sampling when its radii were decided, so its radii are lower bounds "
                             f"and cannot be compared image by image: certify with a fixed n, or with curve-loss")
    index, at, also = np.intersect1d(one.index, two.index, assume_unique=True, return_indices=True)
    if not len(index):
        raise InputError(f"{one.name} and {two.name} have no image in common")
    radii = [np.where(run.correct, run.radius, 0.0)[where] for run, where in ((one, at), (two, also))]
    order = np.argsort(radii[1] - radii[0], kind="stable")
    larger = order[radii[0][order] > radii[1][order]]
    shown = larger[:check_count("count", count)]
    store, images = second[0], images_of(second[0])
    clean = images.batch(index[shown])
    noisy = np.stack([noisy_copy(image, noise_of(store), int(store.identity["seed"]), int(key))
                      for image, key in zip(clean, index[shown], strict=True)]) if len(shown) else clean
    words = tuple(images.class_names[c] for c in store.column("label")[also][shown])
    return Failures((one.name, two.name), len(larger), len(index), index[shown], radii[0][shown], radii[1][shown],
                    words, clean, noisy, how.estimate(noisy) if how and len(shown) else None)


def contraction_of(store: Store, images_of: ImagesOf, how: Estimates, count: int, copies: int) -> Contracted:
    """Contraction and slide of at most `count` images of a store, evenly spaced among its records.

    Raises InputError for a store without records or with several an image, and what `contraction_and_slide` does.
    """
    if store.kind not in ("certify", "predict"):
        raise InputError(f"{store.folder} is a store of kind {store.kind}: contraction takes the images and answers of "
                         f"a certify or predict store")
    rows = store.num_records
    check_records(store)
    chosen = np.unique(np.linspace(0, rows - 1, min(check_count("count", count), rows)).round().astype(np.int64))
    index, prediction, label = (store.column(name)[chosen] for name in ("index", "prediction", "label"))
    clean = images_of(store).batch(index)
    found = contraction_and_slide(clean, index, how.walked or how.estimate, noise_of(store), copies,
                                  int(store.identity["seed"]))
    return Contracted(found, prediction == label, prediction < 0, clean[0].size)
