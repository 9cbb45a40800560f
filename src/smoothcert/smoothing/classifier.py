"""SmoothedClassifier: the thin face that users hold."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothcert.checks import check_bounds, check_count, check_positive, check_seed, check_shape
from smoothcert.errors import InputError, ModelError
from smoothcert.machine import find_device
from smoothcert.noise import NoiseCentre, build_noise, fresh_seed, reach_of
from smoothcert.progress import Progress, Workload, metering, reporting
from smoothcert.smoothing.adapters import adapted
from smoothcert.smoothing.calls import choose_certify_plan, choose_predict_plan, make_certificate, make_prediction
from smoothcert.smoothing.contract import check_placed
from smoothcert.smoothing.images import check_inputs, check_labels, noise_keys, read_otherwise
from smoothcert.smoothing.kept import KeptVoters
from smoothcert.smoothing.precision import isolate
from smoothcert.smoothing.protocols import (
    CastInputs,
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
from smoothcert.smoothing.sampling import Sampling, behind, default_batch
from smoothcert.smoothing.scores import Scores
from smoothcert.smoothing.voters import Finished, run_plan
from smoothcert.stats import AtRadii, Certificate, CertifyPlan, Plan, Prediction, PredictPlan

ImageList = Sequence[Tensor] | Sequence[np.ndarray]
"""Inputs of one shape. Their type says that they are several; that of a tensor or array does not."""

_FIXED = ("sigma", "num_classes", "seed", "bounds", "input_shape", "noise", "device", "output")


class SmoothedClassifier(nn.Module):
    """g(x) = the class that the base classifier gives most often to x + N(0, sigma^2 I) (Cohen et al. 2019, eq. 1).

    `predict` and `certify` estimate it, with a guarantee. As a torch module, `g(x)` gives scores of the classes that
    are differentiable in x (see `forward`), so that attacks and other tools take g where they take a network. Its
    parameters and its state dict are those of the model and the denoiser, and `g.to(device)` moves them.

    What the caller has set in torch (autocast, default dtype and device, shortened products) changes no answer.

    Args:
        model: base classifier, (N, *shape) float32 -> (N, K) logits, normalisation inside; or an object with
            `predict_proba`. Networks with BatchNorm or dropout must be in eval mode.
        sigma: noise level, in units of the inputs, whatever the model does with them.
        num_classes: K >= 2.
        seed: run seed in [0, 2^128); None draws one (kept in `.seed`). Same seed, same image: same noise.
        noise: "grid" (nothing of the image leaks through rounding), "gaussian" (as in the literature) or "sound" (the
            grid's, drawn exactly). None is "grid" where there are levels, else "gaussian".
        denoiser: callable (y, sigma) -> estimate of the same shape, placed between noise and model.
        bounds: (low, high) that every value must keep, or None for any.
        levels: levels per unit the inputs were quantised to, for grid noise: 255 for 8-bit images; None for none.
        input_shape: of one input, such as (30,) for the rows of a table or (12, 1000) for series; None is images
            (C, H, W) of any size, and what lists hold.
        device: where the model runs; None means where its parameters are, and they must be there.
        engine, space, precision, noise_format: how votes are computed; see `smoothcert.smoothing.Sampling`.
        output: name or position of the output that holds the logits, where the model has several that could.
        m: noisy copies behind `g(x)`.
    Raises:
        InputError: values outside these. ModelError: a model that cannot serve as a base classifier.

    >>> linear = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
    >>> g = SmoothedClassifier(linear, sigma=0.5, num_classes=2, seed=0)
    >>> g.certify(torch.ones(1, 4, 4), n0=100, n=1000).prediction
    0
    """

    def __init__(
        self, model: Any, sigma: float, num_classes: int, seed: int | None = None, noise: str | None = None,
        denoiser: Denoiser | None = None, bounds: tuple[float, float] | None = (0, 1), levels: int | None = 255,
        device: torch.device | str | None = None, *, input_shape: Sequence[int] | None = None, engine: str = "auto",
        space: str = "auto", precision: str = "float32", noise_format: str = "auto", output: str | int | None = None,
        m: int = 64,
    ):
        super().__init__()
        self.training = False  # whatever the model's mode is: its own check says where that matters
        self.num_classes = check_count("num_classes", num_classes, least=2)
        self.sigma = check_positive("sigma", sigma)
        self.bounds = check_bounds(bounds)
        self.input_shape = None if input_shape is None else check_shape("input_shape", input_shape)
        self.noise = build_noise(noise, self.sigma, levels if levels is None else check_count("levels", levels),
                                 reach_of(self.bounds))
        self.seed = fresh_seed() if seed is None else check_seed(seed)
        self.model = model
        self.output = output
        self.denoiser = denoiser
        self.m = m
        self.device = find_device(device_of(self.model) if device is None else device)
        check_placed(self.device, self.model, denoiser)
        self._how = Sampling(engine, space, precision, noise_format)
        self._calls = 0  # of `forward` in train mode
        self._forget()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED and name in vars(self):
            raise InputError(f"{name} is fixed, because the noise and what was opened hang on it: make another "
                             f"SmoothedClassifier({name}=...)")
        if name == "model":
            refuse_smoothed(value)
            value = base_classifier(value, self.num_classes)
        if name == "m":
            value = check_count("m", value)
        if name in ("model", "denoiser"):  # a function may follow a network
            self._modules.pop(name, None)
            vars(self).pop(name, None)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles hold: all but what was opened."""
        return {**vars(self), "_voters": None, "_adapted": None, "_scores": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        """Drop all that was opened for the model as it was."""
        self._voters = KeptVoters(self.noise, self.num_classes, self.seed, self._how, self.bounds)
        self._adapted: dict[Any, Any] = {}
        self._scores = Scores(self.noise, self.num_classes, self.seed)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SmoothedClassifier":
        """Move or convert all parameters and buffers; then the device, and the type of images, follow."""
        super()._apply(fn, recurse)
        model = self.model
        vars(self)["device"] = fn(torch.empty(0, device=self.device)).device
        self.model = model.network if isinstance(model, CastInputs) else model
        self._forget()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Return log G(x), G the mean over m noisy copies of softmax(logits): differentiable in x and the parameters.

        In eval mode, in which a SmoothedClassifier begins, the m noise vectors are the same for every image and every
        call: fixed by the seed alone, so that g is one smooth function of one image, and independent of the noise of
        `predict` and `certify`. The copies pass in batches. Where gradients are wanted, each batch is computed again on
        the way back, so that memory stays that of one batch. After `g.train()` the model is in train mode too, each
        call draws fresh noise, and all copies pass at once, as BatchNorm wants them.

        Args:
            x: inputs (N, *shape), floats, on any device. Values outside `bounds` are taken too, as attacks and
                gradients come upon them.
        Returns:
            (N, K) float32, log-probabilities: a row's largest is an estimate of g(x), without a guarantee.
        Raises:
            InputError: x is no such tensor. ModelError: a network in train mode in a g in eval mode, or one that fails.
        """
        fits = isinstance(x, Tensor) and (x.ndim == 4 if self.input_shape is None else x.shape[1:] == self.input_shape)
        if not fits or not x.is_floating_point() or not x.numel():
            told = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            wanted = ", ".join(map(str, ("N", *(self.input_shape or "CHW"))))
            raise InputError(f"g(x) takes a tensor of inputs ({wanted}), floating point, got {told}")
        if not self.training:
            self._check_ready()
        start = self._calls * self.m if self.training else 0
        self._calls += self.training
        rows = len(x) * self.m if self.training else default_batch(tuple(x.shape[1:]), self.device)
        with isolate(self.device):
            run = behind(self.denoiser, self.sigma, self._adapt(tuple(x.shape[1:])))
            random = is_random(self.denoiser) or is_random(self.model)
            return self._scores.of(run, x.to(self.device, torch.float32), self.m, start, rows, random)

    @overload
    def predict(
        self, x: ImageList, plan: PredictPlan | int | None = None, alpha: float | None = None, *,
        n: int | None = None, n_max: int | None = None, index: int | Sequence[int] | None = None,
        batch_size: int | None = None, progress: Progress | None = None, verbose: bool = False,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self, x: Tensor | npt.ArrayLike, plan: PredictPlan | int | None = None, alpha: float | None = None, *,
        n: int | None = None, n_max: int | None = None, index: int | Sequence[int] | None = None,
        batch_size: int | None = None, progress: Progress | None = None, verbose: bool = False,
    ) -> Prediction | list[Prediction]: ...

    def predict(
        self, x: Tensor | npt.ArrayLike | ImageList, plan: PredictPlan | int | None = None,
        alpha: float | None = None, *, n: int | None = None, n_max: int | None = None,
        index: int | Sequence[int] | None = None, batch_size: int | None = None, progress: Progress | None = None,
        verbose: bool = False,
    ) -> Prediction | list[Prediction]:
        """PREDICT (Cohen et al. 2019): the smoothed class of each image, or None where it abstains.

        Args:
            x: one input or several (N, *shape), floats in `bounds`: images (C, H, W) or (N, C, H, W), or inputs of
                `input_shape`; or several of any shape in a list.
            plan: `smoothcert.stats.FixedPredict` or `Sequential`. Instead of it, its parts may be given: `n` (here or
                by name) and `alpha` make `FixedPredict`, `n_max` and `alpha` make `Sequential`.
            index: the images' indices in their data set, which key the noise; None keys it by the images' bytes.
            batch_size: samples per forward pass; never changes results.
            progress: is called with every `smoothcert.progress.Event`.
            verbose: shows a bar, in a terminal or a notebook, and plain lines elsewhere.
        Returns:
            A Prediction for one image, a list of them for several.
        Raises:
            InputError: parts that make no plan, or a plan and parts. ModelError: a model that fails.

        >>> from smoothcert.stats import Sequential
        >>> linear = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
        >>> g = SmoothedClassifier(linear, sigma=0.5, num_classes=2, seed=0)
        >>> g.predict(torch.ones(1, 4, 4), Sequential(n_max=10_000)).prediction
        0
        """
        chosen = choose_predict_plan(plan, n=n, alpha=alpha, n_max=n_max)
        finished, single = self._run(chosen, x, index, batch_size, progress, verbose)
        results = [make_prediction(done, chosen) for done in finished]
        return results[0] if single else results

    @overload
    def certify(
        self, x: ImageList, plan: CertifyPlan | int | None = None, n: int | None = None,
        alpha: float | None = None, method: str | None = None, margin: float | None = None, *, n0: int | None = None,
        radii: Sequence[float] | None = None, curve_loss: float | None = None, curve_to: float | None = None,
        n_max: int | None = None, labels: int | Sequence[int] | None = None,
        index: int | Sequence[int] | None = None, batch_size: int | None = None,
        progress: Progress | None = None, verbose: bool = False,
    ) -> list[Certificate]: ...

    @overload
    def certify(
        self, x: Tensor | npt.ArrayLike, plan: CertifyPlan | int | None = None, n: int | None = None,
        alpha: float | None = None, method: str | None = None, margin: float | None = None, *, n0: int | None = None,
        radii: Sequence[float] | None = None, curve_loss: float | None = None, curve_to: float | None = None,
        n_max: int | None = None, labels: int | Sequence[int] | None = None,
        index: int | Sequence[int] | None = None, batch_size: int | None = None,
        progress: Progress | None = None, verbose: bool = False,
    ) -> Certificate | list[Certificate]: ...

    def certify(
        self, x: Tensor | npt.ArrayLike | ImageList, plan: CertifyPlan | int | None = None, n: int | None = None,
        alpha: float | None = None, method: str | None = None, margin: float | None = None, *, n0: int | None = None,
        radii: Sequence[float] | None = None, curve_loss: float | None = None, curve_to: float | None = None,
        n_max: int | None = None, labels: int | Sequence[int] | None = None,
        index: int | Sequence[int] | None = None, batch_size: int | None = None,
        progress: Progress | None = None, verbose: bool = False,
    ) -> Certificate | list[Certificate]:
        """CERTIFY: the class chosen from some samples, and the l2 radius proved from fresh ones.

        Args:
            x, index, batch_size, progress, verbose: as for `predict`.
            plan: a design of `smoothcert.stats`: `FixedN`, a fixed number of samples; `AtRadii`, which decides for each
                radius of a list whether it is certified, and stops when all are decided; or `Curve`, which sizes n for
                each image by a pilot so that at most a share of the radii that n_max samples would give is lost.
                Instead of it, its parts may be given: `n0` (here or by name), `n`, `alpha`, `method` and `margin` make
                `FixedN`; with `n_max` in place of `n`, `radii` makes `AtRadii`, and `curve_loss` makes `Curve`, up to
                the radius `curve_to` if that is given.
            labels: the images' classes, for an `AtRadii` with labels known, which judges no other class; `labels` and
                `radii` make one.
        Returns:
            A Certificate for one image, a list of them for several.
        Raises:
            InputError: parts that make no plan, or a plan and parts. ModelError: a model that fails.

        >>> from smoothcert.stats import AtRadii, FixedN
        >>> linear = lambda x: torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], dim=1)
        >>> g = SmoothedClassifier(linear, sigma=0.5, num_classes=2, seed=0)
        >>> g.certify(torch.ones(1, 4, 4), FixedN(n=1000)) == g.certify(torch.ones(1, 4, 4), n=1000)
        True
        >>> [c.prediction for c in g.certify(torch.ones(2, 1, 4, 4), AtRadii(radii=[0.25], n_max=1000))]
        [0, 0]
        """
        chosen = choose_certify_plan(self.noise, plan, labels is not None, n0=n0, n=n, alpha=alpha, method=method,
                                     margin=margin, radii=radii, curve_loss=curve_loss, curve_to=curve_to, n_max=n_max)
        finished, single = self._run(chosen, x, index, batch_size, progress, verbose, labels)
        results = [make_certificate(done, chosen, self.sigma, self.num_classes) for done in finished]
        return results[0] if single else results

    def soft(self, x: Tensor, m: int = 64, *, index: int | Sequence[int] | None = None) -> Tensor:
        """Return G(x), the mean over m noisy copies of softmax(logits): differentiable in x and the model's parameters.

        Args:
            x: inputs (N, *shape), or one, as for `predict`, on any device.
            m: noisy copies an image; all N m of them pass at once, since their graph is kept. The noise is that of
                stage "attack": fixed by the seed and the image (or its index), and independent of certification's.
        Returns:
            (N, K) probabilities: an estimate, not a bound.
        """
        check_count("m", m)
        self._check_ready()
        with isolate(self.device):
            images, keys, single = self._images(x, index)
            x = torch.as_tensor(x).to(self.device, torch.float32)
            x = x.unsqueeze(0) if single else x
            shifts = np.empty((len(images), m, images[0].size), dtype=np.float32)
            for noisy_shifts, image, key in zip(shifts, images, keys, strict=True):
                centre = self.noise.centre(image)
                self.noise.fill(noisy_shifts, centre, self.noise.stream(self.seed, key, "attack", centre))
            # y - x: adding it to x keeps the gradient that rounding to a grid would stop.
            shifts = shifts.reshape(len(images), m, *images.shape[1:]) - images[:, None]
            noisy = (x.unsqueeze(1) + torch.from_numpy(shifts).to(self.device)).flatten(0, 1)
            normals: list[Normals] = []
            if is_random(self.denoiser) or is_random(self.model):  # those of stage "attack" too
                segments = [Segment(Subject(key, NoiseCentre(image.ravel())), "attack", 0, m)
                            for image, key in zip(images, keys, strict=True)]
                normals.append(lambda t, like: walk_normals(self.seed, segments, t, images.shape[1:]).to(like))
            run = behind(self.denoiser, self.sigma, self._adapt(images.shape[1:], images[0] if single else None))
            logits = run(noisy, *normals)
            logits = check_logits(logits, len(noisy), self.num_classes)
            return logits.softmax(dim=1).unflatten(0, (len(x), m)).mean(dim=1)

    def _run(
        self, plan: Plan, x: object, index: int | Sequence[int] | None, batch_size: int | None,
        progress: Progress | None, verbose: bool, labels: int | Sequence[int] | None = None,
    ) -> tuple[list[Finished], bool]:
        """Take the images through the plan; return them in their order, and whether x was a single one."""
        images, keys, single = self._images(x, index)
        known = check_labels(labels, isinstance(plan, AtRadii) and plan.labels_known, len(images), self.num_classes)
        self._check_ready()
        in_eval = not any(part.training for part in _modules(self.model))
        most, done = plan.most(), list[Finished]()
        with (isolate(self.device), nullcontext() if in_eval else evaluation(self.model),
              reporting(progress, verbose)):
            model = self._adapt(images.shape[1:], images[0] if single else None)
            opened = self._voters.of(self.model, model, self.denoiser, images.shape[1:], batch_size,
                                     most * len(images), self.device)
            work = Workload(len(images), len(images), "images", most * len(images), "n_max" not in plan.identity())
            with metering("sampling", work) as meter:
                for finished in run_plan(plan, opened.voter, zip(range(len(images)), images, keys, strict=True),
                                         self.num_classes, None if known is None else known.__getitem__):
                    done.append(finished)
                    meter.finish(most, finished.samples)
            return sorted(done, key=lambda finished: finished.tag), single

    def _check_ready(self) -> None:
        """Raise ModelError for a model in train mode, and InputError for one that was moved to another device."""
        check_ready(self.model)
        check_placed(self.device, self.model, self.denoiser)

    def _adapt(self, shape: tuple[int, ...], single: np.ndarray | None = None) -> Any:
        """Return the model as one that gives logits (N, K) of any number of inputs of a shape; kept while it is the
        same.

        Args:
            single: the image that was given alone, for a word on what else it could be where the model fails.
        """
        key = (id(self.model), shape)
        if key not in self._adapted:
            try:
                fitting = adapted(self.model, shape, self.num_classes, self.output, self.device)
            except ModelError as error:
                reading = None if single is None else read_otherwise(self.model, single, self.device)
                if reading is None:
                    raise
                raise ModelError(f"{error}; {reading}") from error
            self._adapted = {key: fitting}
        return self._adapted[key]

    def _images(self, x: Any, index: int | Sequence[int] | None) -> tuple[np.ndarray, list[int], bool]:
        """Return checked float32 inputs (N, *shape) on the host, their noise keys, and whether x was a single one."""
        images, single = check_inputs(x, self.bounds, self.input_shape)
        return images, noise_keys(images, index), single


def refuse_smoothed(model: Any) -> None:
    """Raise ModelError for what is smoothed already, which torch would run as a network."""
    if isinstance(model, SmoothedClassifier):
        raise ModelError("the model is a SmoothedClassifier already: give the model in it (g.model)")


def _modules(model: Any) -> Iterable[nn.Module]:
    return model.modules() if isinstance(model, nn.Module) else ()
