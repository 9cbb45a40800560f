"""ART's estimator for randomized smoothing, over our sampler.

Where ART (the Adversarial Robustness Toolbox) is installed, `SmoothedEstimator` is a `PyTorchRandomizedSmoothing`, so
that it is a `BaseEstimator`, and ART's attacks, metrics and `fit` take it. Elsewhere it has the methods below.
"""

import inspect
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from smoothcert.checks import check_count
from smoothcert.errors import InputError, MissingExtraError
from smoothcert.interop.smooth import LiveClassifier, rows_in_a_pass
from smoothcert.smoothing import SmoothedClassifier
from smoothcert.stats import ABSTAIN, Certificate, FixedN, FixedPredict, Prediction


class _WithoutArt:
    """The part of `PyTorchRandomizedSmoothing` that needs no ART; the arguments are its own."""

    estimator_params = ("model", "loss", "input_shape", "nb_classes", "optimizer", "channels_first", "clip_values",
                        "preprocessing_defences", "postprocessing_defences", "preprocessing", "device_type",
                        "sample_size", "scale", "alpha")

    def __init__(
        self, model: Any, loss: Any, input_shape: tuple[int, ...], nb_classes: int, optimizer: Any = None,
        channels_first: bool = True, clip_values: Any = None, preprocessing_defences: Any = None,
        postprocessing_defences: Any = None, preprocessing: Any = (0.0, 1.0), device_type: str = "gpu",
        sample_size: int = 32, scale: float = 0.1, alpha: float = 0.001,
    ):
        self.loss, self.input_shape, self.nb_classes, self.optimizer = loss, tuple(input_shape), nb_classes, optimizer
        self.channels_first, self.clip_values, self.preprocessing = channels_first, clip_values, preprocessing
        self.preprocessing_defences, self.postprocessing_defences = preprocessing_defences, postprocessing_defences
        self.device_type, self.sample_size, self.scale, self.alpha = device_type, sample_size, scale, alpha
        on_gpu = device_type != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self.model = model.to(self.device)

    def fit(self, x: Any, y: Any, *args: Any, **kwargs: Any) -> None:
        raise MissingExtraError("adversarial-robustness-toolbox", "art", "fit")

    def loss_gradient(self, x: Any, y: Any, training_mode: bool = False, **kwargs: Any) -> np.ndarray:
        inputs = torch.from_numpy(np.asarray(x, dtype=np.float32)).requires_grad_()
        network = _Front(self.model.train(training_mode), *_mean_and_std(self.preprocessing))
        loss = self.loss(network(inputs.to(self.device)), _labels(y).to(self.device))
        return torch.autograd.grad(loss, inputs)[0].numpy()


try:
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing as _Installed

    _Base: Any = _Installed
except ImportError:  # also where another package of the name `art` is installed
    _Base = _WithoutArt


class SmoothedEstimator(_Base):
    """Randomized smoothing with ART's arguments and methods: arrays in, arrays out.

    All attributes are read at each call, so `estimator.scale = 1.0` takes effect.

    Args:
        model: torch module, or any function of images, (N, *input_shape) float32 -> (N, K) logits; put into eval mode
            at each call.
        loss: of the base classifier, for `loss_gradient` without sampling.
        input_shape: of one input, (C, H, W) or any other.
        nb_classes: K.
        clip_values: (low, high) that inputs must keep, numbers or arrays; None takes any. Noise is never clipped.
        preprocessing: (subtrahend, divisor); both become part of the base classifier, behind the noise.
        preprocessing_defences, postprocessing_defences: must be None: what changes images or answers belongs into the
            model, so that it is certified with it.
        sample_size: samples that choose a class, and noisy copies behind a gradient.
        scale: sigma of the noise, in the units of the inputs.
        alpha: failure probability of each answer.
        seed: run seed; None draws one. The same input and seed give the same answer.
        noise, levels: as for `SmoothedClassifier`.
        optimizer, channels_first, device_type: as in ART.

    Differs from ART: noise lies on a grid and has streams of its own, and the radius is rounded down.
    """

    estimator_params = [*_Base.estimator_params, "seed", "noise", "levels"]  # noqa: RUF012 - ART's own form

    def __init__(self, *args: Any, seed: int | None = None, noise: str = "grid", levels: int = 255, **kwargs: Any):
        given = _given(args, kwargs)
        for name in ("preprocessing_defences", "postprocessing_defences"):
            if given.get(name):
                raise InputError(f"{name} must be None, got {given[name]!r}: put them into the model, so that what is "
                                 f"certified is what is used")
        if not isinstance(given["model"], nn.Module):
            given["model"] = _Function(given["model"])
        super().__init__(**given)
        self.seed, self.noise, self.levels = seed, noise, levels
        self._live, self._front = LiveClassifier(), (None, None, None)
        check_count("sample_size", self.sample_size)
        self._ready()

    def predict(  # type: ignore[override]
        self, x: Any, batch_size: int = 128, verbose: bool = False, *, is_abstain: bool = True, **kwargs: Any
    ) -> np.ndarray:
        """Return (N, K) float32, 1 at the class of each image; a row of zeros where PREDICT abstains.

        Args:
            x: (N, *input_shape).
            batch_size: samples a forward pass.
            verbose: of no effect.
            is_abstain: False gives the most frequent class instead, which claims nothing.
        """
        plan, images = FixedPredict(self.sample_size, self.alpha), self._inputs(x)
        found = self._ready().predict(images, plan, batch_size=rows_in_a_pass(batch_size, images[0].size))
        answers = np.zeros((len(images), self.nb_classes), dtype=np.float32)
        for row, one in zip(answers, cast(list[Prediction], found), strict=True):
            answer = one.prediction if is_abstain else one.counts.top
            if answer is not None:
                row[answer] = 1
        return answers

    def certify(self, x: Any, n: int, batch_size: int = 32) -> tuple[np.ndarray, np.ndarray]:
        """Return classes (N,) int64, -1 for abstentions, and l2 radii (N,) float64, from `n` samples an image."""
        plan, images = FixedN(n0=self.sample_size, n=n, alpha=self.alpha, method="cohen"), self._inputs(x)
        found = cast(list[Certificate], self._ready().certify(
            images, plan, batch_size=rows_in_a_pass(batch_size, images[0].size)))
        return (np.array([ABSTAIN if one.prediction is None else one.prediction for one in found], dtype=np.int64),
                np.array([one.radius for one in found]))

    def loss_gradient(  # type: ignore[override]
        self, x: Any, y: Any, training_mode: bool = False, *, sampling: bool = False, **kwargs: Any
    ) -> np.ndarray:
        """Return the gradient of the mean loss in x, as an array of its shape.

        Args:
            y: classes (N,), or one-hot (N, K).
            training_mode: whether the model is in train mode.
            sampling: True takes -log of the mean softmax over `sample_size` noisy copies as the loss; False, as in ART,
                takes the base classifier's own loss, without noise.
        """
        if not sampling:
            # ART's own takes neither classes nor float64. Its attacks hand it tensors, and want one back.
            if not isinstance(x, Tensor):
                x = np.asarray(x, dtype=np.float32)
                y = np.eye(self.nb_classes, dtype=np.float32)[y] if np.ndim(y) == 1 else y
            return super().loss_gradient(x, y, training_mode=training_mode, **kwargs)
        inputs = torch.from_numpy(self._inputs(x)).requires_grad_()
        classifier = self._ready().train(training_mode)
        classifier.m = self.sample_size
        scores = classifier(inputs)
        gradient = torch.autograd.grad(nll_loss(scores, _labels(y).to(scores.device)), inputs)[0]
        classifier.eval()
        return gradient.numpy()

    def _ready(self) -> SmoothedClassifier:
        low_high = None if self.clip_values is None else np.asarray(self.clip_values)
        bounds = tuple(map(float, low_high)) if low_high is not None and low_high.ndim == 1 else None
        return self._live.ready(self._base(), sigma=self.scale, num_classes=self.nb_classes, seed=self.seed,
                                bounds=bounds, noise=self.noise, levels=self.levels,
                                input_shape=tuple(self.input_shape))

    def _base(self) -> nn.Module:
        """Return the base classifier, with the preprocessing inside; the same one while neither is exchanged."""
        model, preprocessing, front = self._front
        if model is not self.model or preprocessing is not self.preprocessing:
            front = _Front(self.model, *_mean_and_std(self.preprocessing))
            self._front = (self.model, self.preprocessing, front.model if front.changes_nothing else front)
        return cast(nn.Module, self._front[2])

    def _inputs(self, x: Any) -> np.ndarray:
        """Return inputs (N, *input_shape), checked, as float32."""
        inputs, shape = np.asarray(x), tuple(self.input_shape)
        if inputs.ndim != 1 + len(shape) or inputs.shape[1:] != shape or not len(inputs):
            raise InputError(f"inputs must have shape (N, {', '.join(map(str, shape))}), got {inputs.shape}")
        inputs = inputs.astype(np.float32)
        if self.clip_values is not None and np.ndim(self.clip_values[0]):
            low, high = self.clip_values
            if (inputs < low).any() or (inputs > high).any():
                raise InputError("inputs must keep clip_values, got values outside: clip them, or give no clip_values")
        return inputs


class _Function(nn.Module):
    """A function of images as a torch module, since ART takes nothing else."""

    def __init__(self, function: Any):
        super().__init__()
        if not callable(function):
            raise InputError(f"model must be a torch module or a function of images, got {type(function).__name__}")
        self.function = function

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


class _Front(nn.Module):
    """A model behind the standardisation of its inputs."""

    def __init__(self, model: nn.Module, mean: np.ndarray, std: np.ndarray):
        super().__init__()
        self.model, self.training = model, model.training
        device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), None)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32, device=device), persistent=False)
        self.changes_nothing = not np.any(mean) and bool(np.all(std == 1))

    def forward(self, inputs: Tensor) -> Any:
        mean, std = (_along(cast(Tensor, values), inputs) for values in (self.mean, self.std))
        return self.model((inputs - mean) / std)


def _labels(y: Any) -> Tensor:
    """Return classes (N,) from classes or one-hot rows."""
    labels = torch.as_tensor(np.asarray(y))
    return (labels.argmax(dim=1) if labels.ndim == 2 else labels).to(torch.int64)


def _along(values: Tensor, inputs: Tensor) -> Tensor:
    """Return values that broadcast against inputs: one a channel lies along the axis of that size, the last one first,
    as in ART."""
    if values.ndim != 1 or len(values) in (1, inputs.shape[-1]):
        return values
    axis = 1 if inputs.shape[1] == len(values) else 2
    return values.reshape(-1, *[1] * (inputs.ndim - 1 - axis))


def _mean_and_std(preprocessing: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return what is subtracted and what divides, from ART's tuple or from its object."""
    if preprocessing is None:
        preprocessing = (0.0, 1.0)
    if hasattr(preprocessing, "mean") and hasattr(preprocessing, "std"):
        preprocessing = preprocessing.mean, preprocessing.std
    if not isinstance(preprocessing, tuple) or len(preprocessing) != 2:
        raise InputError(f"preprocessing must be (subtrahend, divisor), got {preprocessing!r}: put anything else into "
                         f"the model")
    mean, std = (np.asarray(values, dtype=np.float32) for values in preprocessing)
    return mean, std


def _given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return arguments by ART's names, or raise InputError for those that are missing or unknown."""
    try:
        return dict(inspect.signature(_WithoutArt).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise InputError(f"the arguments are those of ART's PyTorchRandomizedSmoothing: {error}") from None
