"""LoadedModel: a model from outside the package, with what identifies it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smoothcert.errors import FileError
from smoothcert.models.layers import Shape
from smoothcert.smoothing.batching import BatchSizes


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A user's model, ready for use.

    model: a torch module in eval mode, an object with `predict_proba`, or another callable (N, C, H, W) -> (N, K).
    spec: what it was loaded from, as the user wrote it.
    kind: "factory", "onnx", "pt2", "hf", "timm" or "torchvision".
    content: bytes whose SHA-256 identifies the code or the file. They say all about an "onnx" or "pt2" model; a
        torch module from elsewhere has weights beside, and any other callable from a factory may hold any state.
    input_shape: (C, H, W) where the file fixes it; None where the model takes others or does not say.
    input_dtype: type that a file's model casts images to, "float32" for any other model.
    """

    model: Callable[..., Any] | Any
    spec: str
    kind: str
    content: bytes = field(repr=False)
    input_shape: Shape | None = None
    input_dtype: str = "float32"


def exact_batches(sizes: BatchSizes, dtype: str) -> BatchSizes:
    """Return the batches in which a model of this type judges each image by itself.

    Sums in float16 and bfloat16 are rounded so coarsely that their order, which depends on the batch, changes votes:
    there each image gets a batch of its own.
    """
    return replace(sizes, alone=True) if dtype in ("float16", "bfloat16") else sizes


def read_model_file(path: Path) -> bytes:
    """The bytes of a file. Raises FileError, naming it, where it is missing or unreadable."""
    if not path.is_file():
        raise FileError(f"there is no model file {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"the model file {path} cannot be read: {error}") from error
