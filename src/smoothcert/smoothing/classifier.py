"""SmoothedClassifier: the thin face that users hold."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from smoothcert.checks import check_count, check_positive, check_seed
from smoothcert.errors import InputError, ModelError
from smoothcert.noise import NoiseCentre, build_noise, fresh_seed, image_key
from smoothcert.smoothing.adapters import adapted, choose
from smoothcert.smoothing.content import attributes_hash, attributes_of, state_parts
from smoothcert.smoothing.contract import few_answers, try_rows
from smoothcert.smoothing.engines import reduced
from smoothcert.smoothing.isolation import isolated
from smoothcert.smoothing.packing import Finished, run_plan
from smoothcert.smoothing.protocols import (
    Denoiser,
    Normals,
    base_classifier,
    check_logits,
    check_ready,
    device_of,
    evaluation,
    is_random,
)
from smoothcert.smoothing.rows import Segment, Subject, walk_normals
from smoothcert.smoothing.sampling import OpenVoter, Sampling, behind, open_voter
from smoothcert.stats import Certificate, ClassCounts, Plan, Prediction, certify_plan, predict_plan

_FIXED = ("sigma", "num_classes", "seed", "bounds", "noise", "device", "output")


class SmoothedClassifier:
    """g(x) = the class that the base classifier gives most often to x + N(0, sigma^2 I) (Cohen et al. 2019, eq. 1).

    What the caller has set in torch (autocast, default dtype and device, shortened products) changes no answer.

    Args:
        model: base classifier, (N, C, H, W) float32 -> (N, K) logits, normalisation inside; or an object with
            `predict_proba`. Networks with BatchNorm or dropout must be in eval mode.
        sigma: noise level, in units of the images.
        num_classes: K >= 2.
        seed: run seed in [0, 2^128); None draws one (kept in `.seed`). Same seed, same image: same noise.
        noise: "grid" (default; nothing of the image leaks through rounding), "gaussian" (as in the literature) or
            "sound" (the grid's, drawn exactly).
        denoiser: callable (y, sigma) -> estimate of the same shape, placed between noise and model.
        bounds: (low, high) that every pixel must keep, or None to lift the check (for teaching and tests).
        levels: levels per unit the images were quantised to, for grid noise: 255 for 8-bit images.
        device: where the model runs; None means where its parameters are.
        engine, space, precision, noise_format: how votes are computed; see `smoothcert.smoothing.Sampling`.
        output: name or position of the output that holds the logits, where the model has several that could.
    Raises:
        InputError: values outside these. ModelError: a model that cannot serve as a base classifier.

    >>> linear = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
    >>> g = SmoothedClassifier(linear, sigma=0.5, num_classes=2, seed=0)
    >>> g.certify(torch.ones(1, 4, 4), n0=100, n=1000).prediction
    0
    """

    def __init__(
        self, model: Any, sigma: float, num_classes: int, seed: int | None = None, noise: str = "grid",
        denoiser: Denoiser | None = None, bounds: tuple[float, float] | None = (0, 1), levels: int = 255,
        device: torch.device | str | None = None, *, engine: str = "auto", space: str = "auto",
        precision: str = "float32", noise_format: str = "auto", output: str | int | None = None,
    ):
        self.num_classes = check_count("num_classes", num_classes, least=2)
        self.sigma = check_positive("sigma", sigma)
        self.bounds = _check_bounds(bounds)
        reach = max(map(abs, self.bounds)) if self.bounds else 1.0
        self.noise = build_noise(noise, self.sigma, check_count("levels", levels), reach)
        self.seed = fresh_seed() if seed is None else check_seed(seed)
        self.model = base_classifier(model, self.num_classes)
        self.output = output
        self.denoiser = denoiser
        self.device = torch.device(device) if device is not None else device_of(self.model)
        self._how = partial(Sampling, engine, space, precision, noise_format, device=self.device)
        self._opened: dict[Any, tuple[OpenVoter, tuple[bytes, str]]] = {}
        self._adapted: dict[Any, Any] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in vars(self):
            raise InputError(f"{name} is fixed, because the noise and what was opened hang on it: make another "
                             f"SmoothedClassifier({name}=...)")
        super().__setattr__(name, value)

    def predict(
        self, x: Any, n: int | None = None, alpha: float = 0.001, *, n_max: int | None = None,
        index: int | Sequence[int] | None = None, batch_size: int | None = None,
    ) -> Any:
        """PREDICT (Cohen et al. 2019): the smoothed class of each image, or None where it abstains.

        Args:
            x: one image (C, H, W) or several (N, C, H, W), floats in `bounds`.
            n: samples an image; 1,000 unless `n_max` is given.
            alpha: probability of returning another class than g's.
            n_max: instead of n, stop as soon as the answer is sure, after at most so many samples
                (see `smoothcert.stats.SequentialPredict`).
            index: the images' indices in their data set, which key the noise; None keys it by the images' bytes.
            batch_size: samples per forward pass; never changes results.
        Returns:
            A Prediction for one image, a list of them for several.
        """
        plan = predict_plan(alpha, n, n_max)
        results = [
            Prediction(_class_or_none(done.prediction), done.values["p_value"], ClassCounts(done.history[-1].counts),
                       alpha)
            for done in self._run(plan, x, index, batch_size)
        ]
        return results[0] if _is_single(x) else results

    def certify(
        self, x: Any, n0: int | None = None, n: int | None = None, alpha: float = 0.001, method: str = "two-sided",
        margin: float | None = None, *, radii: Sequence[float] | None = None, curve_loss: float | None = None,
        n_max: int | None = None, index: int | Sequence[int] | None = None, batch_size: int | None = None,
    ) -> Any:
        """CERTIFY: the class chosen from n0 samples, and the l2 radius proved from fresh ones.

        Three designs, of which one is chosen: a fixed number of samples (`n`, the default, 100,000); `radii` with
        `n_max`, which decides for each radius of a list whether it is certified and stops when all are decided; or
        `curve_loss` with `n_max`, which sizes n for each image by a pilot so that at most this share of the radius
        that n_max samples would give is lost.

        Args:
            x, index, batch_size: as for `predict`.
            n0: samples that choose the class, then thrown away: 100, or 1,000 as a pilot for `curve_loss`.
            alpha: failure probability of each certificate.
            method: "two-sided" (default), "cohen" or "t-certify"; see `smoothcert.stats.certify_counts`.
            margin: tau, to ask for the radius within which the class keeps probability 1/2 + tau.
        Returns:
            A Certificate for one image, a list of them for several.
        """
        plan = certify_plan(partial(self.noise.radius, margin=margin), n0=n0, n=n, radii=radii, curve_loss=curve_loss,
                            n_max=n_max, alpha=alpha, method=method, margin=margin)
        results = [self._certificate(done, alpha, method, margin) for done in self._run(plan, x, index, batch_size)]
        return results[0] if _is_single(x) else results

    def _certificate(self, done: Finished, alpha: float, method: str, margin: float | None) -> Certificate:
        selection, *looks = (ClassCounts(look.counts) for look in done.history)
        return Certificate(_class_or_none(done.prediction), done.values["radius"], selection, tuple(looks), self.sigma,
                           alpha, method, margin, done.off_grid)

    def soft(self, x: Tensor, m: int = 64, *, index: int | Sequence[int] | None = None) -> Tensor:
        """G(x) = the mean over m noisy copies of softmax(logits): differentiable in x and the model's parameters.

        Args:
            x: images (N, C, H, W), or one (C, H, W), on any device.
            m: noisy copies an image; all N m of them pass at once, since their graph is kept. The noise is that of
                stage "attack": fixed by the seed and the image (or its index), and independent of certification's.
        Returns:
            (N, K) probabilities: an estimate, not a bound.
        """
        check_count("m", m)
        check_ready(self.model)
        with isolated(self.device):
            images, keys, single = self._images(x, index)
            x = torch.as_tensor(x).to(self.device, torch.float32)
            x = x.unsqueeze(0) if x.ndim == 3 else x
            shifts = np.stack([self._shifts(image, key, m) for image, key in zip(images, keys, strict=True)])
            noisy = (x.unsqueeze(1) + torch.from_numpy(shifts).to(self.device)).flatten(0, 1)
            logits = behind(self.denoiser, self.sigma, self._adapt(images, single))(noisy, *self._walk(images, keys, m))
            logits = check_logits(logits, len(noisy), self.num_classes)
            return logits.softmax(dim=1).unflatten(0, (len(x), m)).mean(dim=1)

    def _walk(self, images: np.ndarray, keys: Sequence[int], m: int) -> list[Normals]:
        """The normals of stage "attack", where something random asks for them."""
        if not (is_random(self.denoiser) or is_random(self.model)):
            return []
        segments = [Segment(Subject(key, NoiseCentre(image.ravel())), "attack", 0, m)
                    for image, key in zip(images, keys, strict=True)]
        return [lambda t, like: walk_normals(self.seed, segments, t, images.shape[1:]).to(like)]

    def _shifts(self, image: np.ndarray, key: int, m: int) -> np.ndarray:
        """y - x for m noisy copies: adding it to x keeps the gradient that rounding to a grid would stop."""
        noisy = np.empty((m, image.size), dtype=np.float32)
        centre = self.noise.centre(image)
        self.noise.fill(noisy, centre, self.noise.stream(self.seed, key, "attack", centre))
        return noisy.reshape(m, *image.shape) - image

    def _run(
        self, plan: Plan, x: Any, index: int | Sequence[int] | None, batch_size: int | None
    ) -> list[Finished]:
        images, keys, single = self._images(x, index)
        check_ready(self.model)
        with isolated(self.device), evaluation(self.model):
            model = self._adapt(images, single)
            voter = self._voter(model, images.shape[1:], batch_size, plan.most() * len(images)).voter
            done = run_plan(plan, voter, zip(range(len(images)), images, keys, strict=True), self.num_classes)
            return sorted(done, key=lambda finished: finished.tag)

    def _adapt(self, images: np.ndarray, single: bool) -> Any:
        """The model as one that gives logits (N, K) of any number of such images, kept as long as it is the same."""
        key = (id(self.model), images.shape[1:])
        if key not in self._adapted:
            try:
                fitting = adapted(self.model, images.shape[1:], self.num_classes, self.output, self.device)
            except ModelError as error:
                reading = _other_reading(self.model, images[0], self.device) if single else None
                if reading is None:
                    raise
                raise ModelError(f"{error}; {reading}") from error
            self._adapted = {key: fitting}
        return self._adapted[key]

    def _voter(self, model: Any, shape: tuple[int, ...], batch_size: int | None, samples: int) -> OpenVoter:
        """The voter for images of this shape, kept as long as the network and its answers stay what they are."""
        c, h, w = shape
        key = (_content(self.model), shape, batch_size)
        run = behind(self.denoiser, self.sigma, reduced(model, "float32"))
        random = is_random(self.denoiser) or is_random(model)
        if key in self._opened:
            voter, before = self._opened[key]
            answers = few_answers(run, shape, self.num_classes, self.device, random, self.sigma, self.bounds)
            if before == self._state(answers, voter):
                return voter
        how = self._how(batch_size=batch_size, samples=samples)
        conduct = try_rows(run, shape, self.num_classes, self.device, model=model, random=random, sigma=self.sigma,
                           bounds=self.bounds)
        voter = open_voter(model, self.noise, self.num_classes, (c, h, w), self.seed, self.denoiser, how, conduct)
        self._opened = {key: (voter, self._state(conduct.answers, voter))}
        return voter

    def _state(self, answers: Tensor, voter: OpenVoter) -> tuple[bytes, str]:
        """A few answers of the live model and, where a copy of it runs, its attributes: what tells that it changed."""
        copied = isinstance(self.model, nn.Module) and voter.engine != "plain"
        return answers.double().cpu().numpy().tobytes(), attributes_hash(attributes_of(self.model)) if copied else ""

    def _images(self, x: Any, index: int | Sequence[int] | None) -> tuple[np.ndarray, list[int], bool]:
        """Checked float32 images (N, C, H, W) on the host, their noise keys, and whether x was a single image."""
        images = check_images(x, self.bounds)
        single = images.ndim == 3
        images = images[None] if single else images
        if index is None:
            return images, [image_key(image) for image in images], single
        keys = [index] if isinstance(index, int | np.integer) else list(index)
        if len(keys) != len(images):
            raise InputError(f"index must name each of the {len(images)} image(s), got {len(keys)} of them")
        return images, [check_count("index", key, least=0) for key in keys], single


def check_images(x: Any, bounds: tuple[float, float] | None) -> np.ndarray:
    """Return images as float32 (C, H, W) or (N, C, H, W) on the host, or raise InputError for anything else."""
    try:
        if isinstance(x, Tensor):
            x = (x.detach().float() if x.is_floating_point() else x.detach()).cpu().numpy()
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"images cannot be read as an array ({error})") from None
    if array.ndim not in (3, 4):
        raise InputError(f"images must have shape (C, H, W) or (N, C, H, W), got shape {array.shape}")
    if array.size == 0:
        raise InputError(f"there are no pixels in images of shape {array.shape}")
    if array.dtype.kind != "f":
        hint = ": divide 8-bit images by 255" if array.dtype.kind in "iu" else ""
        raise InputError(f"images must be floating point in {bounds or 'units of sigma'}, got dtype {array.dtype}"
                         f"{hint}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError("images must be finite, got NaN or infinite pixels")
    if bounds and (array.min() < bounds[0] or array.max() > bounds[1]):
        raise InputError(f"pixels must lie in [{bounds[0]}, {bounds[1]}], got values from {array.min()!s} to "
                         f"{array.max()!s}: {_advice(float(array.min()), float(array.max()), bounds)}")
    return array


def _advice(low: float, high: float, bounds: tuple[float, float]) -> str:
    if max(bounds[0] - low, high - bounds[1]) < 1e-5 * (bounds[1] - bounds[0]):
        return "clip what rounding has put outside"
    if bounds == (0, 1) and low >= 0 and 2 < high <= 255:
        return "divide 8-bit values by 255"
    return "undo any normalisation (it belongs inside the model), or pass other bounds"


def _check_bounds(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    if bounds is None:
        return None
    try:
        low, high = map(float, bounds)
    except (TypeError, ValueError):
        raise InputError(f"bounds must be two numbers (low, high), or None, got {bounds!r}") from None
    if not low < high:
        raise InputError(f"bounds must be (low, high) with low < high, or None, got {bounds!r}")
    return low, high


def _other_reading(model: Any, image: np.ndarray, device: torch.device) -> str | None:
    """What an array of three dimensions may be beside the one image that the model does not take."""
    read = f"x of shape {image.shape} was read as one image (C, H, W)"
    ways = "series (N, C, T) are given as x[:, :, None, :], to lambda x: model(x.squeeze(2)); grey images as x[:, None]"
    try:
        with torch.no_grad():
            choose(model(torch.from_numpy(image).to(device)), len(image), None, None)
    except (Exception, SystemExit):  # the model takes it no better as a batch
        return f"{read}: several have shape (N, C, H, W); {ways}" if len(image) > 4 else None
    return f"{read}, but the model takes it as a batch of {len(image)}: {ways}" if len(image) > 1 else None


def _is_single(x: Any) -> bool:
    return np.ndim(x) == 3


def _content(model: Any) -> str:
    """A hash of a network's weights and buffers; other models are told apart by themselves."""
    if not isinstance(model, nn.Module):
        return str(id(model))
    digest = hashlib.sha256()
    for part in state_parts(model.state_dict().items()):
        digest.update(part)
    return digest.hexdigest()


def _class_or_none(prediction: Any) -> int | None:
    return None if prediction < 0 else int(prediction)
