"""From a model and a noise to a voter: which space is sampled, which engine runs, which format the noise has."""

import logging
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcert.checks import check_count, check_known
from smoothcert.errors import EngineWarning, InputError, ModelError
from smoothcert.noise import SMALL_SPACE_FORMAT, Noise, PhiloxStream
from smoothcert.smoothing.adapters import Fit, behind_fit
from smoothcert.smoothing.batching import ONE_ROW
from smoothcert.smoothing.contract import COARSE, Conduct, check_placed, try_rows
from smoothcert.smoothing.engines import ENGINES, PRECISIONS, Choice, Engine, open_engine
from smoothcert.smoothing.engines.onnx_engines import CACHED_WEIGHTS, dense_weights
from smoothcert.smoothing.files import Runtime, find_file, runtime_of
from smoothcert.smoothing.gpu.opening import ON_DEVICE, open_rows
from smoothcert.smoothing.gpu.referee import Referee, open_referee
from smoothcert.smoothing.gpu.rows import DeviceRows, SentRows
from smoothcert.smoothing.gpu.shortcuts import is_taken
from smoothcert.smoothing.gpu.voter import DeviceVoter
from smoothcert.smoothing.gpu.votes import choose_write
from smoothcert.smoothing.passes import Passes, halve_batch
from smoothcert.smoothing.precision import NARROW, reduce_precision
from smoothcert.smoothing.protocols import (
    BaseClassifier,
    Denoiser,
    Normals,
    device_of,
    input_dtype,
    is_random,
)
from smoothcert.smoothing.rows import HostRows, SpaceNoise
from smoothcert.smoothing.spaces import Space, find_space
from smoothcert.smoothing.voters import BinaryVoter, LogitVoter, NetworkVoter, Voter

_log = logging.getLogger("smoothcert")

SHORT = 20_000
"""Samples of a run, below which the check of an engine takes more of them than it saves."""

ENGINE_NAMES = ("auto", *ENGINES)
SPACES = ("auto", "pixels")
NOISE_FORMATS = ("auto", "sfc64-v1", "philox-v1", "sound-v1", "sound-philox-v1")


@dataclass(frozen=True)
class Sampling:
    """The way to obtain votes; everything of it but `samples` and `device` may be left alone.

    Attributes:
        engine: "auto", or a name from `smoothcert.smoothing.engines.ENGINES`.
        space: "auto" samples where the noise has the fewest dimensions; "pixels" never leaves the image.
        precision: "float32"; "tf32", "bf16" and "fp16" make another base classifier, and are certified as such.
        noise_format: "auto" is sfc64-v1 on a CPU and philox-v1 on a GPU, of sound noise sound-v1 and sound-philox-v1;
            each runs on both.
        batch_size: samples a forward pass; None picks one. Never changes results in float32.
        device: where the model runs; None means where its parameters are.
        samples: how many samples the run may take, where known: lets `auto` engines weigh their start-up.
    """

    engine: str = "auto"
    space: str = "auto"
    precision: str = "float32"
    noise_format: str = "auto"
    batch_size: int | None = None
    device: torch.device | None = None
    samples: int | None = None


@dataclass(frozen=True)
class OpenVoter:
    """A voter with what was resolved for it: the part of a store's identity that sampling owns.

    `choice` says why the engine was taken, where there was one.
    """

    voter: Voter
    space: str
    engine: str
    batch: int | None
    random: bool = False
    dtype: torch.dtype = torch.float32
    runtime: Runtime | None = None
    choice: Choice | None = None

    def identity(self, precision: str, device: torch.device) -> dict[str, Any]:
        """Return what sampling adds to a store's identity: space, engine, precision and kind of device.

        With the network's own type where it is not float32; in reduced precision the runtime where it decides the
        answers, else the batch, which shapes them, and that BatchNorm was folded in before the network was rounded,
        which is not so in stores of earlier versions; and the format of its normals where the base classifier is
        random.
        """
        own = {} if self.dtype == torch.float32 else {"input_dtype": str(self.dtype).removeprefix("torch.")}
        batch = {"batch_size": self.batch} if precision != "float32" or self.dtype in COARSE else {}
        batch |= {"folded": "before rounding"} if precision in NARROW else {}
        batch = batch if self.runtime is None else {"runtime": self.runtime.identity()}
        walk = {"walk_format": PhiloxStream.format} if self.random else {}
        return {"space": self.space, "engine": self.engine, "precision": precision, "device": device.type, **own,
                **batch, **walk}


def open_voter(
    model: BaseClassifier, noise: Noise, num_classes: int, shape: tuple[int, ...], seed: int,
    denoiser: Denoiser | None = None, how: Sampling | None = None, conduct: Conduct | None = None,
    bounds: tuple[float, float] | None = (0, 1),
) -> OpenVoter:
    """Try the model on a few rows, choose space and engine, and make the voter.

    Args:
        model: base classifier, ready for use (see `protocols.check_ready`).
        shape: of one input, (C, H, W) of images.
        seed: run seed of every stream.
        denoiser: placed between noise and model, or None.
        conduct: how the model answered on a few rows, where it was tried before.
        bounds: (low, high) of the inputs, for the rows that it is tried on; None where they have none.
    Raises:
        InputError: unknown names, a precision that the engine or the device does not have, or a format that the noise
            cannot be drawn from. ModelError: a model that is no function of one input.
    """
    how = how or Sampling()
    check_known("engine", how.engine, ENGINE_NAMES)
    check_known("space", how.space, SPACES)
    check_known("noise_format", how.noise_format, NOISE_FORMATS)
    if how.noise_format not in ("auto", *noise.formats):
        own = ", ".join(name for name in noise.formats if name in NOISE_FORMATS)
        raise InputError(f"{noise.kind} noise has formats of its own, {own}, got noise_format {how.noise_format}: "
                         f"leave it at auto")
    check_known("precision", how.precision, PRECISIONS)
    device = how.device or device_of(model)
    check_placed(device, model, denoiser)
    if conduct is None:
        run = behind(denoiser, noise.sigma, reduce_precision(model, "float32"))
        conduct = try_rows(run, shape, num_classes, device, model=model,
                           random=is_random(denoiser) or is_random(model), sigma=noise.sigma, bounds=bounds)
    if conduct.alone:
        warnings.warn(f"the model judges one image at a time, which is slower: {conduct.alone}", EngineWarning,
                      stacklevel=2)
    space: Space | None = None
    # On a grid, and behind a denoiser, the noise is no Gaussian in a smaller space.
    gaussian = noise.kind == "gaussian" and denoiser is None and not is_random(model)
    if gaussian and not conduct.alone and (how.space, how.precision, how.noise_format) == ("auto", "float32", "auto"):
        space = find_space(model, shape, num_classes)
    if space is not None and space.name == "binary":
        return OpenVoter(BinaryVoter(space, noise, seed), "binary", "exact", None)
    if space is not None and space.head is None:
        return OpenVoter(LogitVoter(space, noise.sigma, seed), "logits", "exact", None)
    return _network_voter(model, noise, num_classes, shape, seed, denoiser, how, space, conduct)


def _network_voter(
    model: BaseClassifier, noise: Noise, num_classes: int, shape: tuple[int, ...], seed: int,
    denoiser: Denoiser | None, how: Sampling, space: Space | None, conduct: Conduct,
) -> OpenVoter:
    device, dtype = how.device or device_of(model), input_dtype(model)
    row = shape if space is None else space.shape
    network = model if space is None else space.head
    dense = dense_weights(network) + dense_weights(denoiser)
    size = default_batch(row, device, dense) if how.batch_size is None else how.batch_size
    batch = check_count("batch_size", size)
    file = find_file(network)
    if file is not None and file.rows is not None:
        batch = file.rows  # it computes so many, whatever it is given
    only_plain = f"the network computes in {dtype}" if dtype in COARSE else None
    if conduct.alone or conduct.steps:  # other engines round otherwise
        only_plain = ("the model's rows are judged one by one" if conduct.alone else
                      "the model answers in steps, which other rounding would move")
    reduced = file is not None and how.precision == "bf16"  # which one engine alone has
    short = how.engine == "auto" and (how.samples or 0) < SHORT and not reduced
    engine, batch = _open_in_memory(network, replace(how, engine="plain" if short else how.engine), row, batch, device,
                                    only_plain)
    if short and engine.name == "plain":
        _log.info("engine plain: the check of another takes more than it saves below %s samples", f"{SHORT:,}")
    coarse = how.precision != "float32" or dtype in COARSE
    referee = not (coarse or conduct.alone or conduct.exact)
    plain = reduce_precision(network, how.precision) if referee else engine.run
    random = is_random(denoiser) or is_random(model)
    run, judge = (behind(denoiser, noise.sigma, one) for one in (engine.run, plain))
    if conduct.alone:
        run = behind_fit(run, Fit(batch=ONE_ROW))
    fixed = ("the engine computes batches of one size" if engine.batch else
             "the batch is part of the classifier in reduced precision" if coarse else
             "the model changes the rows that it is given" if conduct.overwrites else None)
    passes = Passes(run, num_classes, engine.batch or batch, fixed)
    rows = choose_rows(noise, space, row, seed, device, how)
    if isinstance(rows, DeviceRows) and denoiser is None and is_taken("row_layout"):
        rows.intake = engine.intake
    if isinstance(rows, DeviceRows | SentRows):
        # Without a referee the engine judges again, in its own batches, what was not drawn rightly.
        again = open_referee(judge, row, device, random) if referee else Referee(run, passes.batch, nullcontext)
        voter: NetworkVoter | DeviceVoter = DeviceVoter(rows, passes, again, num_classes, device,
                                                        choose_write(num_classes, device), referee, random,
                                                        records=engine.name == "eager" and denoiser is None
                                                        and not conduct.alone,
                                                        free=referee and how.batch_size is None)
    else:
        voter = NetworkVoter(
            rows, passes, judge, num_classes, referee, random, conduct.overwrites,
            exact=engine.runtime is not None or (runtime_of(network) is not None and not conduct.alone))
    _log.info("engine %s, batches of %d, noise drawn in %s as %s", engine.name, engine.batch or batch,
              "pixels" if space is None else space.name, voter.format)
    return OpenVoter(voter, "pixels" if space is None else space.name, engine.name, engine.batch or batch, random,
                     dtype, engine.runtime, engine.choice)


def choose_rows(
    noise: Noise, space: Space | None, shape: tuple[int, ...], seed: int, device: torch.device, how: Sampling
) -> HostRows | DeviceRows:
    on_gpu, wanted = device.type == "cuda", how.noise_format
    if wanted == "auto" and on_gpu:
        wanted = next((name for name in noise.formats if name in ON_DEVICE), noise.formats[0])
    elif wanted == "auto":
        wanted = noise.formats[0] if space is None else SMALL_SPACE_FORMAT
    drawn = noise if space is None else SpaceNoise(space, noise.sigma)
    if on_gpu:
        return open_rows(drawn, shape, int(np.prod(shape)) if space is None else space.dimension, seed, wanted, device)
    return HostRows(drawn, shape, seed, wanted, device)


def _open_in_memory(
    network: Any, how: Sampling, shape: tuple[int, ...], batch: int, device: torch.device, only_plain: str | None
) -> tuple[Engine, int]:
    """Return an engine, and the batch that it has memory for: at most the one asked for."""
    fixed = None
    if how.precision != "float32" and how.batch_size is not None:
        fixed = f"batch_size {batch} is part of the classifier in reduced precision"
    told = False
    while True:
        try:
            return open_engine(how.engine, network, shape=shape, batch=batch, device=device, precision=how.precision,
                               samples=how.samples, only_plain=only_plain), batch
        except torch.OutOfMemoryError:
            pass  # what was opened is let go with the error, before a smaller batch is tried
        batch, told = halve_batch(batch, fixed, told), True


def behind(denoiser: Any, sigma: float, run: Any) -> Any:
    """Return a forward pass with the denoiser in front of it; `Normals` go to the one of them that is random."""
    if denoiser is None:
        return run
    if is_random(denoiser):
        return lambda noisy, normals: run(denoise(denoiser, noisy, sigma, normals))
    return lambda noisy, *normals: run(denoise(denoiser, noisy, sigma), *normals)


def denoise(denoiser: Any, noisy: Tensor, sigma: float, *normals: Normals) -> Tensor:
    """Return the denoiser's estimate, or raise ModelError where its shape differs from its input's."""
    estimate: Any = denoiser(noisy, sigma, *normals)
    if not isinstance(estimate, Tensor) or estimate.shape != noisy.shape:
        got = tuple(estimate.shape) if isinstance(estimate, Tensor) else type(estimate).__name__
        raise ModelError(f"the denoiser must return a tensor of its input's shape {tuple(noisy.shape)}, got {got}")
    return estimate


def default_batch(shape: tuple[int, ...], device: torch.device, dense: int = 0) -> int:
    """Return the samples of a forward pass: on a GPU a full one, on a CPU what keeps activations in cache.

    The figures are in benchmarks/RESULTS.md. `dense` is the number of fully connected weights. Where they exceed a
    core's cache they are read from memory once a pass, so that many samples should share a reading.
    """
    values = int(np.prod(shape))
    if device.type == "cuda":
        return int(np.clip(2**24 // values, 64, 4096))
    room = 1_000_000 if dense > CACHED_WEIGHTS else 100_000
    return int(np.clip(room // values, 16, 1000))
