"""The exact margins of a linear classifier: what no certificate of it, smoothed, can exceed."""

from dataclasses import dataclass

import numpy as np

from smoothcert.errors import InputError


@dataclass(frozen=True)
class Margins:
    """Of each image, a linear classifier's class and its l2 distance to where another class wins, in pixel units."""

    prediction: np.ndarray
    margin: np.ndarray


def linear_margins(images: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Margins:
    """min over c of (z_top - z_c) / ||w_top - w_c||, for logits z = W x + b.

    Smoothed with Gaussian noise of any sigma, the classifier gives its top class at x with probability at most
    Phi(margin / sigma). So no certified radius from that probability alone exceeds the margin, but where the bound on
    it fails; with two classes it tends to the margin.

    Args:
        images: (M, C, H, W). weight: (K, d). bias: (K,).
    Raises InputError for other shapes.

    >>> found = linear_margins(np.array([[[[3.0, 1.0]]]]), np.eye(2), np.zeros(2))
    >>> found.prediction.tolist(), found.margin.round(4).tolist()
    ([0], [1.4142])
    """
    flat = np.asarray(images, dtype=float).reshape(len(images), -1)
    weight, bias = np.asarray(weight, dtype=float), np.asarray(bias, dtype=float)
    if weight.ndim != 2 or weight.shape[1] != flat.shape[1] or bias.shape != weight.shape[:1]:
        raise InputError(f"weight must be (K, {flat.shape[1]}) and bias (K,), got {weight.shape} and {bias.shape}")
    logits = flat @ weight.T + bias
    top = logits.argmax(axis=1)
    gaps = logits[np.arange(len(top)), top][:, None] - logits
    lengths = np.linalg.norm(weight[:, None] - weight, axis=2)[top]
    others = np.arange(len(weight)) != top[:, None]
    distances = np.divide(gaps, lengths, out=np.full_like(gaps, np.inf), where=others & (lengths > 0))
    return Margins(top, distances.min(axis=1))
