"""Inputs as they are drawn: images as they are, volumes by a slice, series as lines, rows of tables as bars."""

from collections.abc import Sequence

import numpy as np

from smoothcert.errors import InputError


def take_slice(values: np.ndarray) -> np.ndarray:
    """Return an input of more than three axes, such as a volume (C, D, H, W), as its middle slice (C, H, W); others as
    they are."""
    while values.ndim > 3:
        values = values[:, values.shape[1] // 2]
    return values


def view_range(clean: np.ndarray, *others: np.ndarray) -> tuple[float, float]:
    """Return the (low, high) between which inputs are drawn, all in one scale.

    Images are clipped to [0, 1] for the eye, or where clean ones leave it to what these span; lines and bars show all.

    Args:
        clean, others: (N, *shape) each.
    """
    pictures = clean.ndim > 3
    seen = [clean] if pictures else [clean, *others]
    low, high = min(float(part.min()) for part in seen), max(float(part.max()) for part in seen)
    if pictures and low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def place_side_by_side(parts: Sequence[np.ndarray], gap: float) -> np.ndarray:
    """Return inputs of one shape as one, along their last axis, with a gap of one value between them."""
    first = parts[0]
    between = np.full((*first.shape[:-1], max(1, first.shape[-1] // 14)), gap, dtype=np.float32)
    return np.concatenate([piece for part in parts for piece in (part, between)][:-1], axis=-1)


def check_image(image: np.ndarray, what: str) -> None:
    """Raise InputError unless an input is an image (C, H, W)."""
    if image.ndim != 3:
        raise InputError(f"{what} is for images (C, H, W), and these inputs have shape {image.shape}")
