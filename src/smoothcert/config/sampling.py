"""Options that the runs over a model's images share."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from inspect import signature
from typing import Any, Literal

from pydantic import Field

from smoothcert.checks import construct
from smoothcert.config.base import Config, DataConfig, MachineConfig, Part
from smoothcert.config.fields import (
    Count,
    DataPart,
    DenoiserPart,
    Engine,
    Ints,
    Local,
    ModelPart,
    NoiseFormat,
    NoiseKind,
    Options,
    Probability,
    Seed,
    Sigma,
    Stored,
    Whole,
)
from smoothcert.config.model import ModelConfig
from smoothcert.errors import InputError

BLOCK = 16
"""Records that a cluster hands out together, or more where one task has more."""


def check_sigma(noise: Any, sigma: float | None) -> None:
    """Raise InputError for a sigma that the kind of noise cannot have, whatever the data."""
    if sigma is None or noise is None:
        return
    for levels in (1, None):
        with suppress(InputError):
            import_module("smoothcert.noise").build_noise(noise, sigma, levels=levels)
            return
    raise InputError(f"sigma: {sigma:g} is too large for {noise} noise on any data: give sigma in the data's units "
                     f"([0, 1] of images), or noise gaussian")


class RunConfig(ModelConfig, DataConfig, MachineConfig):
    """Options of every run over a model's images: which model, images and noise, and which store."""

    data: DataPart = Field(None, description="data set: digits, mnist, cifar10, parquet:PATH, csv:PATH, npz:PATH, "
                                             "datasets:PATH, imagefolder:PATH, file.py:NAME or package.module:NAME "
                                             "(default: the model's training data, else digits)")
    model: ModelPart = Field(description="model directory, zoo:NAME, package.module:factory, file.py:factory, "
                                         "FILE.pt2, FILE.onnx, FILE.xml, sklearn:FILE.skops, hf:NAME, timm:NAME or "
                                         "torchvision:NAME; or a file of weights (.pt, .pth, .pth.tar, .ckpt, .bin, "
                                         ".th, .safetensors), with --model for its network",
                       json_schema_extra={"argument": "MODEL"})
    model_id: str | None = Field(None, description="name for a model that is neither a network nor a file, so that "
                                                   "its run can be resumed")
    output: str | None = Field(None, description="name or position of the model's output that holds the logits, where "
                                                 "several could (default: the only one that can)")
    denoiser: DenoiserPart = Field(None, description="directory of a trained denoiser, to stand between the noise and "
                                                     "the model; or file.py:CLASS, package.module:CLASS",
                                   json_schema_extra={"metavar": "PATH"})
    walk_jump: Local | None = Field(None, description="directory of a second denoiser, for a smaller sigma: walk from "
                                                     "the first one's estimate in its density, then jump (random)")
    attractor: Local | None = Field(None, description="directory of a second denoiser, for a smaller sigma: follow its "
                                                     "gradient flow from the first one's estimate to the end")
    front_option: Options = Field(default_factory=dict, description="option of walk-jump (sigma2, step, steps, unroll) "
                                                                    "or attractor (sigma2, tol, max_steps, method, "
                                                                    "step, unroll), KEY=VALUE (repeatable)")
    sigma: Sigma | None = Field(None, description="noise level, in the data's units (for images pixel units of "
                                                  "[0, 1]), such as 0.25 or 64/255 (default: the denoiser's, else the "
                                                  "one the model was trained with)")
    noise: NoiseKind | None = Field(None, description="noise kind: grid (nothing leaks through rounding), gaussian "
                                                      "(plain floats) or sound (the grid's, drawn exactly); or "
                                                      "file.py:CLASS, package.module:CLASS (default: grid for data on "
                                                      "a grid of levels, as 8-bit images are, else gaussian)")
    alpha: Probability = Field(0.001, description="failure probability of each answer")
    split: str = Field("test", description="split of the data set")
    start: Whole = Field(0, description="first image")
    every: Count = Field(1, description="use every N-th image")
    max_images: Count | None = Field(None, description="at most this many images, evenly spaced over those that "
                                                       "start and every leave (default: all)")
    indices: Ints | None = Field(None, description="exactly these images, such as 3,14,15; excludes start, every and "
                                                   "max-images")
    seed: Seed | None = Field(None, description="run seed in [0, 2^128) (default: drawn, and recorded)")
    workers: Count | None = Field(None, description="processes, one thread each (or one GPU each); never changes "
                                                    "results (default: 1; in a cluster as many as it has room for)")
    cluster: str | None = Field(None, description="sample in a Ray cluster: its address (HOST:PORT or "
                                                  "ray://HOST:PORT), auto (the running one, else one of this machine) "
                                                  "or local (one of this machine)")
    out: Stored = Field(description="store: a directory, or s3://BUCKET/FOLDER, gs://BUCKET/FOLDER; the same "
                                        "command resumes an interrupted run")

    @property
    def processes(self) -> int:
        """The processes of this machine that work on the run."""
        return self.workers or 1

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if self.indices is not None and (self.start, self.every, self.max_images) != (0, 1, None):
            yield "indices names the images one by one: leave start, every and max-images out"
        if self.walk_jump and self.attractor:
            yield "walk-jump and attractor both follow the denoiser: give one of them"
        if self.front_option and not (self.walk_jump or self.attractor):
            yield "front-option goes to walk-jump or attractor: give one of them"

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        yield {"noise", "sigma"}, partial(check_sigma, self.noise, self.sigma)
        yield {"walk_jump", "attractor", "front_option"}, self._check_front_option

    def _check_front_option(self) -> None:
        """Raise ConfigError for options that the walk or the flow does not have."""
        if self.front_option and (self.walk_jump or self.attractor):
            kind = getattr(import_module("smoothcert.denoise"), "WalkJump" if self.walk_jump else "Attractor")
            known = [name for name in signature(kind).parameters if name not in ("first", "second", "sigma")]
            construct(f"front_option: {kind.__name__}", lambda **given: None, known, self.front_option)


class ComputeConfig(Config):
    """Options of how votes are computed."""

    batch_size: Count | None = Field(None, description="samples per forward pass; never changes results in float32 "
                                                       "(default: fits the cache)")
    engine: Engine = Field("auto", description="how networks run: eager (folded), compile, onnxruntime, openvino, "
                                               "mnn, plain (as they are), or auto, the fastest of a trial on long "
                                               "runs; for integer networks in files the runtime that is certified")
    space: Literal["auto", "pixels"] = Field("auto", description="where noise is drawn: auto takes a smaller space "
                                                                 "where the network has one (gaussian noise only), or "
                                                                 "pixels")
    precision: Literal["float32", "tf32", "bf16", "fp16"] = Field(
        "float32", description="arithmetic of the network: float32, tf32, bf16 or fp16; a reduced one makes another "
                               "base classifier, which is what is then certified")
    noise_format: NoiseFormat = Field(
        "auto", description="named random numbers: auto is sfc64-v1 on a CPU and philox-v1 on a GPU, of sound noise "
                            "sound-v1 and sound-philox-v1; each runs on both, and auto alone allows smaller spaces")


class SamplingConfig(RunConfig, ComputeConfig):
    """Options of every run that counts votes."""


ATTACKED = ("eps", "times", "m", "steps")
"""The options that tell the attacks of a store apart: the size, `eps` or `times`, and the others."""
