"""Gathering what pictures of images show: the images of one store, their noisy copies, and their denoised ones."""

from typing import Any

import numpy as np

from smoothcert.errors import InputError
from smoothcert.report.plots.requests import Request
from smoothcert.results.base import check_records
from smoothcert.results.denoising import contraction_of, denoised_copies, denoised_gallery, failures_of
from smoothcert.results.estimates import Estimates
from smoothcert.results.gallery import ImagesOf, gallery_of
from smoothcert.results.panels import noise_panels, resolution_study
from smoothcert.results.regions import decision_regions
from smoothcert.store.recertify import noise_of
from smoothcert.store.store import Store

_PANEL_SIGMA = (0.12, 0.25, 0.5, 1.0)


def gather_gallery(request: Request) -> Any:
    return gallery_of(request.only[0], _images(request), request.options.get("count", 36))


def gather_panels(request: Request) -> Any:
    store, image, key = _one_image(request)
    sigmas = request.options.get("sigma") or sorted({*_PANEL_SIGMA, store.identity["noise"]["sigma"]})
    return noise_panels(image, sigmas, int(store.identity["seed"]), key)


def gather_resolution(request: Request) -> Any:
    store, image, key = _one_image(request)
    sigma = request.options.get("sigma") or [store.identity["noise"]["sigma"]]
    if len(sigma) > 1:
        raise InputError(f"resolution shows one sigma, got {len(sigma)}")
    return resolution_study(image, sigma[0], seed=int(store.identity["seed"]), key=key)


def gather_regions(request: Request) -> Any:
    if request.answers_of is None:
        raise InputError("regions needs the base classifier: give --model")
    store, image, key = _one_image(request)
    answers, images = request.answers_of(store), _images(request)(store)
    found = decision_regions(answers, image, noise_of(store), store.num_classes, seed=int(store.identity["seed"]),
                             key=key)
    row = np.flatnonzero(store.column("index") == key)
    radius = float(store.column("radius")[row[0]]) if len(row) and store.kind == "certify" else 0.0
    return found, tuple(images.class_names), radius


def gather_denoised(request: Request) -> Any:
    how, count = _estimates(request, "denoised"), request.options.get("count", 8)
    if "image" in request.options:
        store, image, key = _one_image(request)
        return denoised_copies(store, image, key, how, count)
    return denoised_gallery(request.only[0], _images(request), how, count)


def gather_failures(request: Request) -> Any:
    first, second = request.opened
    how = request.estimates_of(second[0]) if request.estimates_of else None
    return failures_of(first, second, _images(request), how, request.options.get("count", 12))


def gather_contraction(request: Request) -> Any:
    how, copies = _estimates(request, "contraction"), request.options.get("n", [64])
    if len(copies) > 1:
        raise InputError(f"contraction takes one --n, the number of noisy copies an image; got {len(copies)}")
    return contraction_of(request.only[0], _images(request), how, request.options.get("count", 100), copies[0])


def _estimates(request: Request, kind: str) -> Estimates:
    if request.estimates_of is None:
        raise InputError(f"{kind} needs a denoiser: give --denoiser, its directory")
    return request.estimates_of(request.only[0])


def _one_image(request: Request) -> tuple[Store, np.ndarray, int]:
    """The image asked for, else the one of the median radius, and its index."""
    store = request.only[0]
    check_records(store)
    index, key = store.column("index"), request.options.get("image")
    if key is None:
        order = np.argsort(store.column("radius"), kind="stable") if store.kind == "certify" else np.arange(1)
        key = int(index[order[len(order) // 2]])
    elif key not in index:
        raise InputError(f"image {key} is not among those of {store.folder}, such as {index[0]}")
    return store, _images(request)(store).batch([key])[0], key


def _images(request: Request) -> ImagesOf:
    if request.images_of is None:
        raise InputError("this kind of picture needs the data set of the store")
    return request.images_of
