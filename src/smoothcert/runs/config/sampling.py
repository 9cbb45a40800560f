"""Options of the runs that sample."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from smoothcert.runs.config.base import Config, DataConfig, MachineConfig
from smoothcert.runs.config.fields import (
    Count,
    Engine,
    Ints,
    Local,
    Looks,
    Method,
    NoiseKind,
    Options,
    Probability,
    Radii,
    Real,
    Samples,
    Seed,
    Sigma,
    Stored,
    Whole,
)


class RunConfig(DataConfig, MachineConfig):
    """What all of them share: which model, images and noise, and which store."""

    data: str | None = Field(None, description="data set: digits, mnist, cifar10, parquet:PATH or imagefolder:PATH "
                                               "(default: the model's training data, else digits)")
    model: str = Field(description="model directory, zoo:NAME, package.module:factory, file.py:factory, FILE.pt2, "
                                   "FILE.onnx, hf:NAME, timm:NAME or torchvision:NAME")
    weights: Literal["best", "last"] = Field("best", description="which weights of a model directory: best or last")
    model_id: str | None = Field(None, description="name that identifies a model which is no network and no file, "
                                                   "so that its run can be resumed")
    output: str | None = Field(None, description="name or position of the model's output that holds the logits, where "
                                                 "several could (default: the only one that can)")
    trust: bool = Field(False, description="run the code that a model directory or a .pt2 file brings")
    denoiser: Local | None = Field(None, description="directory of a trained denoiser, to stand between the noise and "
                                                    "the model")
    walk_jump: Local | None = Field(None, description="directory of a second denoiser, for a smaller sigma: walk from "
                                                     "the first one's estimate in its density, then jump (random)")
    attractor: Local | None = Field(None, description="directory of a second denoiser, for a smaller sigma: follow its "
                                                     "gradient flow from the first one's estimate to the end")
    front_option: Options = Field(default_factory=dict, description="option of walk-jump (sigma2, step, steps, unroll) "
                                                                    "or attractor (sigma2, tol, max_steps, method, "
                                                                    "step, unroll), KEY=VALUE (repeatable)")
    sigma: Sigma | None = Field(None, description="noise level, in pixel units of [0, 1], such as "
                                                  "0.25 or 64/255 (default: the denoiser's, else the one the model was "
                                                  "trained with)")
    noise: NoiseKind = Field("grid", description="noise kind: grid (nothing leaks through rounding), gaussian (plain "
                                                  "floats) or sound (the grid's, drawn exactly)")
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
        """Of this machine."""
        return self.workers or 1

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if self.indices is not None and (self.start, self.every, self.max_images) != (0, 1, None):
            raise ValueError("indices names the images one by one: leave start, every and max-images out")
        return self

    @model_validator(mode="after")
    def _one_front(self) -> Self:
        if self.walk_jump and self.attractor:
            raise ValueError("walk-jump and attractor both follow the denoiser: give one of them")
        if self.front_option and not (self.walk_jump or self.attractor):
            raise ValueError("front-option goes to walk-jump or attractor: give one of them")
        return self


class ComputeConfig(Config):
    """How votes are computed."""

    batch_size: Count | None = Field(None, description="samples per forward pass; never changes results in float32 "
                                                       "(default: fits the cache)")
    engine: Engine = Field("auto", description="how networks run: eager (folded), compile, onnxruntime, openvino, "
                                               "plain (as they are), or auto, the fastest of a trial on long runs")
    space: Literal["auto", "pixels"] = Field("auto", description="where noise is drawn: auto takes a smaller space "
                                                                 "where the network has one (gaussian noise only), or "
                                                                 "pixels")
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="arithmetic of the network: float32, tf32 or bf16; a reduced one makes another base "
                               "classifier, which is what is then certified")
    noise_format: Literal["auto", "sfc64-v1", "philox-v1"] = Field(
        "auto", description="named random numbers: auto is sfc64-v1 on a CPU and philox-v1 on a GPU; either runs on "
                            "both, and auto alone allows smaller spaces")


class SamplingConfig(RunConfig, ComputeConfig):
    """What the runs that count votes share."""


class CertifyConfig(SamplingConfig):
    """Options of `smoothcert certify`."""

    n0: Count | None = Field(None, description="samples that choose the class (default: 100, or 1000 for curve-loss, "
                                               "where they are the pilot)")
    n: Samples | None = Field(None, description="samples that bound its probability, fixed (default: 100000 unless "
                                                "n-max is given)")
    n_max: Samples | None = Field(None, description="sequential: at most this many samples; needs radii or curve-loss")
    curve_loss: Probability | None = Field(
        None, description="sequential: size n for each image so that at most this share of the radius at n-max is "
                          "lost, such as 0.01")
    radii: Radii | None = Field(None, description="radii to print, in pixel units, such as 0.5,1,1.5 or 64/255; with "
                                                   "n-max: decide just these, and stop when all are decided")
    method: Method = Field("two-sided", description="procedure: two-sided, cohen or t-certify")
    margin: Annotated[Real, Field(ge=0, lt=0.5)] | None = Field(
        None, description="tau: give the radius within which the class keeps probability 1/2 + tau")

    @model_validator(mode="after")
    def _one_design(self) -> Self:
        if self.n is not None and self.n_max is not None:
            raise ValueError("n fixes the number of samples and n-max bounds a sequential run: give one of them")
        if self.n_max is None and self.curve_loss is not None:
            raise ValueError("curve-loss sizes n for each image up to n-max: give n-max, such as 100000, and no n")
        if self.n_max is not None and (self.radii is None) == (self.curve_loss is None):
            raise ValueError("n-max needs either radii (decide these) or curve-loss (a full curve): give one of them")
        return self


ATTACKED = ("eps", "times", "m", "steps")
"""What tells the attacks of a store apart: its size, `eps` or `times`, and the others."""


class PredictConfig(SamplingConfig):
    """Options of `smoothcert predict`."""

    n: Looks | None = Field(
        None, description="samples an image, fixed (default: 1000 unless n-max is given); several, such as 100,1000, "
                          "are looks at one sample, each judged at alpha by itself")
    n_max: Samples | None = Field(None, description="sequential: stop as soon as the answer is sure, after at most "
                                                    "this many samples")
    adversaries: Stored | None = Field(None, description="store of `smoothcert attack --save-adversaries`: predict its "
                                                         "attacked images in place of the clean ones")
    setting: Options = Field(default_factory=dict, description="with adversaries: which of its attacks, KEY=VALUE "
                                                               "(repeatable): eps or times, m, steps")

    @model_validator(mode="after")
    def _one_design(self) -> Self:
        if self.n is not None and self.n_max is not None:
            raise ValueError("n fixes the number of samples and n-max bounds a sequential run: give one of them")
        if self.setting and self.adversaries is None:
            raise ValueError("setting says which attack of a store: give adversaries, that store")
        if unknown := sorted(set(self.setting) - set(ATTACKED)):
            raise ValueError(f"setting takes {', '.join(ATTACKED)}; got {', '.join(unknown)}")
        return self
