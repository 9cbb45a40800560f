"""What a base classifier and a denoiser are, and the door at which a user's own is made to fit or refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from joblib import parallel_config
from torch import Tensor, nn

from smoothcert.classes import class_columns
from smoothcert.errors import ModelError

BaseClassifier = Callable[..., Tensor]
"""Any callable from float32 images (N, C, H, W) to logits (N, K); normalisation happens inside it.

A random one says so by an attribute `random = True`, and is called with `Normals` after the images: all its randomness
comes from there, a row's from that row's alone.
"""

Normals = Callable[[int, Tensor], Tensor]
"""(step t, rows (N, C, H, W)) -> standard normals of the rows' shape and type, fresh for every row and step."""


class Denoiser(Protocol):
    """An estimate of the clean image from a noisy one: (y (N, C, H, W), sigma) -> tensor of the same shape."""

    def __call__(self, y: Tensor, sigma: float) -> Tensor: ...


class PredictProba:
    """A scikit-learn style classifier as a base classifier: probabilities of flattened images serve as logits.

    joblib's workers are kept out of it: they add probabilities in the order in which they finish, and the last bit of
    a sum decides an exact tie. `classes_`, where there, says which class each column votes for (see
    `smoothcert.classes.class_columns`).
    """

    def __init__(self, predict_proba: Callable[[np.ndarray], Any], classes: Any, num_classes: int):
        self._predict_proba = predict_proba
        self._num_classes = num_classes
        self._columns = None if classes is None else class_columns(classes, num_classes)

    def __call__(self, images: Tensor) -> Tensor:
        with parallel_config("sequential"):
            probabilities = np.asarray(self._predict_proba(images.reshape(len(images), -1).cpu().numpy()))
        if self._columns is not None and probabilities.shape == (len(images), len(self._columns)):
            full = np.zeros((len(images), self._num_classes), dtype=probabilities.dtype)
            full[:, self._columns] = probabilities
            probabilities = full
        return torch.from_numpy(np.ascontiguousarray(probabilities)).to(images.device)


class CastInputs(nn.Module):
    """A network of another floating-point type behind a cast of its images to that type.

    Attributes:
        input_dtype: the type of its parameters, such as torch.float16.
    """

    def __init__(self, network: nn.Module, input_dtype: torch.dtype):
        super().__init__()
        self.network, self.input_dtype = network, input_dtype
        self.training = network.training

    def forward(self, images: Tensor, *normals: Any) -> Any:
        return self.network(images.to(self.input_dtype), *normals)

    @property
    def random(self) -> bool:
        return is_random(self.network)


class Columns:
    """A base classifier whose j-th score is that of class columns[j]; the other classes score less than any."""

    def __init__(self, model: Callable[..., Any], columns: np.ndarray, num_classes: int):
        self._model, self._columns, self._num_classes = model, torch.from_numpy(columns), num_classes

    def __call__(self, images: Tensor) -> Tensor:
        scores = check_logits(self._model(images), len(images), len(self._columns))
        full = (scores.amin(dim=1, keepdim=True) - 1).repeat(1, self._num_classes)
        full[:, self._columns.to(full.device)] = scores
        return full


def base_classifier(model: Any, num_classes: int, classes: Any = None) -> Any:
    """Make a model a base classifier, or raise ModelError.

    Taken: a torch module or any callable that returns logits as a tensor or an array; an object with
    `predict_proba`, or that bound method itself. A network without any float32 parameter gets images of its own type.

    Args:
        classes: which class each of the model's outputs is of, in place of its own `classes_`.
    """
    owner: Any = owner_of(model)
    classes = getattr(owner, "classes_", None) if classes is None else classes
    if isinstance(model, nn.Module):
        dtype = input_dtype(model)
        model = model if dtype == torch.float32 or isinstance(model, CastInputs) else CastInputs(model, dtype)
    elif hasattr(owner, "predict_proba"):
        return PredictProba(owner.predict_proba, classes, num_classes)
    if gives_no_scores(model):
        raise ModelError(f"{type(getattr(model, '__self__', model)).__name__} {NO_SCORES}")
    if not callable(model):
        raise ModelError(
            f"a base classifier must be a callable from images (N, C, H, W) to logits (N, {num_classes}), or have "
            f"predict_proba; got {type(model).__name__}"
        )
    columns = None if classes is None else class_columns(classes, num_classes)
    return model if columns is None else Columns(model, columns, num_classes)


def owner_of(model: Any) -> Any:
    """The object that a bound `predict_proba` belongs to, else the model itself."""
    return getattr(model, "__self__", None) if getattr(model, "__name__", "") == "predict_proba" else model


def input_dtype(model: Any) -> torch.dtype:
    """Return the type of images that a model takes: the one floating-point type of its parameters, float32 where it
    has several or none, or `casts` its images itself."""
    if isinstance(model, CastInputs):
        return model.input_dtype
    if getattr(model, "casts", False):
        return torch.float32
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    found = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    return found.pop() if len(found) == 1 else torch.float32


NO_SCORES = (
    "has no predict_proba, so that it gives no score for each class: train it inside CalibratedClassifierCV, or give a "
    "function that returns scores (N, K), such as lambda x: model.decision_function(x.flatten(1).numpy()) (of two "
    "classes it is one column z: return numpy.stack([-z, z], 1)), or one-hot rows of what predict says"
)


def gives_no_scores(model: Any) -> bool:
    """Whether a model is a scikit-learn style estimator without `predict_proba`, or a bound method of one."""
    name, owner = getattr(model, "__name__", ""), getattr(model, "__self__", None)
    if name in ("decision_function", "predict") and hasattr(owner, "fit"):
        return True
    if isinstance(model, nn.Module) or callable(model) or hasattr(model, "predict_proba"):
        return False
    return hasattr(model, "decision_function") or hasattr(model, "predict")


def is_random(model: Any) -> bool:
    """Whether a base classifier takes `Normals`; see `BaseClassifier`."""
    return getattr(model, "random", False) is True


def check_ready(model: Any) -> None:
    """Raise ModelError if a network is left in train mode where that changes or randomises its answers."""
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        if module.training and _depends_on_mode(module):
            raise ModelError(
                f"the network is in train mode and its layer {name or 'itself'} ({type(module).__name__}) then gives "
                f"other answers than in use: call model.eval() first"
            )


def as_logits(answers: Any) -> Tensor:
    """Return a model's answers as a floating-point tensor, without axes of size 1 beyond the first.

    Whole numbers and booleans count as scores. Raises ModelError for what is no tensor or array of numbers.
    """
    if isinstance(answers, np.ndarray) and answers.dtype.kind in "fiub" and not isinstance(answers, np.ma.MaskedArray):
        usual = answers.dtype.isnative and answers.dtype.itemsize <= 8
        answers = answers if usual else answers.astype(np.float64 if answers.dtype.kind == "f" else np.int64)
        answers = torch.from_numpy(np.ascontiguousarray(answers))
    if isinstance(answers, Tensor) and not answers.is_nested:
        answers = answers.to_dense() if answers.layout is not torch.strided else answers
        answers = answers.dequantize() if answers.is_quantized else answers
    if not isinstance(answers, Tensor) or answers.is_complex() or answers.is_meta or answers.is_nested:
        kind = f"an array of {answers.dtype}" if hasattr(answers, "dtype") else type(answers).__name__
        raise ModelError(f"the base classifier must return a tensor of logits, got {kind}")
    if answers.ndim > 2:
        answers = answers.reshape(len(answers), *(size for size in answers.shape[1:] if size != 1))
    if answers.is_floating_point():
        return answers if answers.dtype.itemsize > 1 else answers.float()
    if answers.ndim == 2 and answers.dtype is torch.int64 and (answers.abs() > 2**53).any():
        answers = answers - answers.amax(dim=1, keepdim=True)  # float64 has no room for all of them
    return answers.double()


def check_logits(answers: Any, batch: int, num_classes: int) -> Tensor:
    """Return a model's answers to a batch as logits (batch, num_classes), or raise ModelError; see `as_logits`."""
    logits = as_logits(answers)
    if [size for size in logits.shape if size != 1] == [size for size in (batch, num_classes) if size != 1]:
        return logits.reshape(batch, num_classes)
    raise ModelError(
        f"the base classifier must return logits of shape ({batch}, {num_classes}) for {batch} images and "
        f"num_classes = {num_classes}, got {tuple(logits.shape)}"
    )


def check_finite(all_ordered: bool) -> None:
    """Raise ModelError unless every logit could be compared (none was NaN)."""
    if not all_ordered:
        raise ModelError(
            "the base classifier returned NaN logits: check its weights and its input scale (float32 images in their "
            "bounds plus Gaussian noise, normalisation inside the model)"
        )


@contextmanager
def evaluation(model: Any) -> Iterator[None]:
    """Put a network in eval mode, and give every submodule its own mode back on the way out."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    try:
        if isinstance(model, nn.Module):
            put_in_eval_mode(model)
        yield
    finally:
        for module, training in modes:
            module.training = training


def put_in_eval_mode(network: nn.Module) -> nn.Module:
    """Call `network.eval()`, and return the network; what torch.export made keeps the mode that it was exported in.

    Such a program refuses the call, also from within another network. Its steps do not ask for the mode.
    """
    try:
        return network.eval()
    except NotImplementedError:
        for part in network.modules():
            part.training = False
    return network


def device_of(model: Any) -> torch.device:
    """The device of a module's first parameter or buffer; the CPU where it has none."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return torch.device("cpu")


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd | nn.RReLU):
        return True
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):
        return module.track_running_stats
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return any(word in type(module).__name__.lower() for word in ("dropout", "droppath", "stochasticdepth"))

