"""Real-valued functions under noise: their outputs at every noisy copy, where a classifier has votes.

A function of M outputs takes the form of a base classifier (`smoothing.real`): so whatever holds of base classifiers,
their adapters, their trial on a few rows and their identity, holds of it.

Outputs are floats, which rounding moves by the batch they are computed in, and no second judgement can settle as it
settles votes. So every forward pass is of `PASS` copies of one input, from a multiple of `PASS` on, by one processor
thread: then outputs hang on model, input and position alone, whatever the workers or a resume.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from smoothcert.errors import ModelError
from smoothcert.noise import Noise
from smoothcert.progress import count_passes
from smoothcert.smoothing.passes import Passes
from smoothcert.smoothing.precision import reduce_precision
from smoothcert.smoothing.protocols import Denoiser, Normals, PredictProba, is_random
from smoothcert.smoothing.real import RealFunction, RealNetwork
from smoothcert.smoothing.rows import Segment, Subject
from smoothcert.smoothing.sampling import Sampling, behind, choose_rows

PASS = 100
"""Noisy copies of a forward pass."""


def real_function(model: Any) -> RealNetwork | RealFunction:
    """Return a model with real-valued outputs in the form of a base classifier.

    Taken: a torch module or any callable from inputs (N, *shape) to (N,) or (N, M); an object with `predict`, such as a
    scikit-learn regressor, or that bound method itself, which gets the inputs flattened.

    Raises:
        ModelError: anything else, or a classifier of that kind, whose `predict` gives classes.
    """
    if isinstance(model, nn.Module):
        return RealNetwork(model)
    owner = getattr(model, "__self__", model) if getattr(model, "__name__", "") == "predict" else model
    if hasattr(owner, "predict_proba"):
        raise ModelError(f"{type(owner).__name__} is a classifier, and this task needs a function with real values: "
                         f"leave the task out to certify its classes, or give a function, such as "
                         f"lambda x: model.predict_proba(x.flatten(1).numpy())[:, 1]")
    if hasattr(owner, "predict") and (owner is not model or not callable(model)):
        return RealFunction(PredictProba(owner.predict, None, 1))
    if callable(model):
        return RealFunction(model)
    raise ModelError(f"a regression takes a callable from inputs (N, *shape) to real values (N,) or (N, M), or an "
                     f"object with predict; got {type(model).__name__}")


class OutputSampler:
    """Draws the outputs of a real-valued function at noisy copies of an input; `open_sampler` makes it.

    Attributes:
        format: named format of the noise.
        outputs: M.
    """

    def __init__(self, rows: Any, run: Callable[..., Any], outputs: int, random: bool):
        self._rows, self._random, self.outputs, self.format = rows, random, outputs, rows.format
        self._passes = Passes(run, outputs + 1, PASS, "the outputs of a function are computed in passes of one size")

    def subject(self, x: np.ndarray, key: int) -> Subject:
        """Return an input made ready for its samples."""
        return Subject(key, self._rows.noise.centre(x))

    def draw(self, subject: Subject, stage: str, n: int) -> np.ndarray:
        """Return the outputs (n, M) at samples 0 ... n - 1 of a stage, as float32.

        Raises ModelError where one is NaN; infinite ones are values like others.
        """
        found = []
        with torch.no_grad():
            for start in range(0, n, PASS):
                segment = Segment(subject, stage, start, PASS)  # the last one too, so that all passes are alike
                rows = self._rows.draw([segment])
                normals_from = (lambda _start, _end, of=segment: [self._walk(of)]) if self._random else None
                found.append(self._passes.logits(rows, normals_from)[:, :-1].float().cpu())
                count_passes(min(PASS, n - start))
        values = torch.cat(found)[:n].numpy()
        if np.isnan(values).any():
            raise ModelError("the function returned NaN, of which nothing can be certified: check its weights "
                             "and its input scale (float32 inputs in their bounds plus Gaussian noise)")
        return values

    def count_above(self, subject: Subject, stage: str, n: int, threshold: float) -> np.ndarray:
        """Return at how many of the samples that `draw` gives each output exceeds a threshold, int64 (M,)."""
        return (self.draw(subject, stage, n) > threshold).sum(axis=0)

    def _walk(self, segment: Segment) -> Normals:
        return lambda step, like: self._rows.walk([segment], step).to(like.dtype)


def open_sampler(
    model: Any, noise: Noise, outputs: int, shape: tuple[int, ...], seed: int, device: torch.device,
    noise_format: str = "auto", denoiser: Denoiser | None = None,
) -> OutputSampler:
    """Return the sampler of a function in the form of a base classifier, with `outputs` columns and one of zeros.

    It is run as it is, in float32.
    """
    rows = choose_rows(noise, None, shape, seed, device, Sampling(noise_format=noise_format))
    run = behind(denoiser, noise.sigma, reduce_precision(model, "float32"))
    return OutputSampler(rows, run, outputs, is_random(denoiser) or is_random(model))
