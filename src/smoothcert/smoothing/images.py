"""Read images as users give them, check them, and refuse them with advice."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.noise import image_key
from smoothcert.smoothing.adapters import choose


def check_inputs(
    x: Any, bounds: tuple[float, float] | None, shape: tuple[int, ...] | None
) -> tuple[np.ndarray, bool]:
    """Return inputs as float32 (N, *shape) on the host, and whether x was a single one.

    A list or tuple of tensors or arrays is several. Any other x is one or several by its number of axes.

    Args:
        shape: of one input; None takes images (C, H, W), and whatever shape a list has.
    Raises:
        InputError: anything else, values that are not finite floats, or values out of bounds.
    """
    listed = isinstance(x, list | tuple) and bool(x) and all(isinstance(one, Tensor | np.ndarray) for one in x)
    try:
        if listed and isinstance(x[0], Tensor):
            x = torch.stack(tuple(x))
        if isinstance(x, Tensor):
            x = (x.detach().float() if x.is_floating_point() else x.detach()).cpu().numpy()
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"inputs cannot be read as an array ({error})") from None
    single = _is_single(array.shape, shape, listed)
    if array.size == 0:
        raise InputError(f"there are no values in inputs of shape {array.shape}")
    if array.dtype.kind != "f":
        hint = ": divide 8-bit images by 255" if array.dtype.kind in "iu" and bounds == (0, 1) else ""
        raise InputError(f"inputs must be floating point in {bounds or 'units of sigma'}, got dtype {array.dtype}"
                         f"{hint}")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError("inputs must be finite, got NaN or infinite values")
    if bounds and (array.min() < bounds[0] or array.max() > bounds[1]):
        low, high = float(array.min()), float(array.max())
        if max(bounds[0] - low, high - bounds[1]) < 1e-5 * (bounds[1] - bounds[0]):
            advice = "clip what rounding has put outside"
        elif bounds == (0, 1) and low >= 0 and 2 < high <= 255:
            advice = "divide 8-bit values by 255"
        else:
            advice = "undo any normalisation (it belongs inside the model), or pass other bounds"
        raise InputError(f"values must lie in [{bounds[0]}, {bounds[1]}], got values from {array.min()!s} to "
                         f"{array.max()!s}: {advice}")
    return array[None] if single else array, single


def _is_single(given: tuple[int, ...], shape: tuple[int, ...] | None, listed: bool) -> bool:
    """Tell whether an array of this shape is one input rather than several, or raise InputError if it is neither."""
    if listed and len(given) > 1 and shape in (None, given[1:]):
        return False
    if shape is None and not listed and len(given) in (3, 4):
        return len(given) == 3
    if shape is not None and not listed and shape in (given, given[1:]):
        return given == shape
    if shape is not None:
        several = ", ".join(map(str, ("N", *shape)))
        raise InputError(f"inputs must have shape {shape}, or ({several}) for several, got shape {given}")
    raise InputError(f"inputs must be images, (C, H, W) or (N, C, H, W), got shape {given}: for others give the shape "
                     f"of one as input_shape, such as input_shape=(12, 1000) for series or (30,) for the rows of a "
                     f"table, or give several in a list")


def noise_keys(inputs: np.ndarray, index: int | Sequence[int] | None) -> list[int]:
    """Return the noise keys of inputs (N, *shape): their indices in their data set, else keys made of their bytes."""
    if index is None:
        return [image_key(one) for one in inputs]
    keys = [index] if isinstance(index, int | np.integer) else list(index)
    if len(keys) != len(inputs):
        raise InputError(f"index must name each of the {len(inputs)} image(s), got {len(keys)} of them")
    return [check_count("index", key, least=0) for key in keys]


def check_labels(labels: Any, needed: bool, images: int, num_classes: int) -> list[int] | None:
    """Return the class of each image, None where none are needed, or raise InputError for anything else.

    Args:
        needed: whether the plan judges the label's own class.
    """
    if needed != (labels is not None):
        raise InputError("a plan with labels known needs labels: give labels, the class of each image" if needed else
                         "labels are for an AtRadii plan with labels_known=True: leave labels out, or give such a plan "
                         "or its radii and n_max")
    if labels is None:
        return None
    given = np.atleast_1d(np.asarray(labels))
    if given.shape != (images,) or given.dtype.kind not in "iu" or not np.all((given >= 0) & (given < num_classes)):
        raise InputError(f"labels must be one class in [0, {num_classes}) for each of the {images} image(s), got "
                         f"{labels!r}")
    return given.tolist()


def read_otherwise(model: Any, image: np.ndarray, device: torch.device) -> str | None:
    """Return what an array of three dimensions may be beside one image that the model does not take; None: nothing."""
    if image.ndim != 3:
        return None
    read = f"x of shape {image.shape} was read as one image (C, H, W)"
    ways = "give the shape of one input, input_shape=(C, T) of series; or grey images as x[:, None]"
    try:
        with torch.no_grad():
            choose(model(torch.from_numpy(image).to(device)), len(image), None, None)
    except (Exception, SystemExit):  # the model takes it no better as a batch
        return f"{read}: several have shape (N, C, H, W); {ways}" if len(image) > 4 else None
    return f"{read}, but the model takes it as a batch of {len(image)}: {ways}" if len(image) > 1 else None
