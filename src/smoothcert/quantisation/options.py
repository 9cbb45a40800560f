"""Options of `quantise`."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

from pydantic import Field

from smoothcert.config.base import DataConfig, MachineConfig, Part
from smoothcert.config.fields import DataPart, DenoiserPart, Local, ModelPart, NoiseKind, Seed, Sigma
from smoothcert.config.model import ModelConfig
from smoothcert.config.sampling import check_sigma

LEAST_IMAGES = 16
"""Fewer calibration images say too little about the range of a layer's values."""


class QuantiseConfig(ModelConfig, DataConfig, MachineConfig):
    """Options of `smoothcert quantise`."""

    model: ModelPart = Field(description="the network to quantise: a model directory, zoo:NAME, "
                                         "package.module:factory, file.py:factory, FILE.pt2, FILE.onnx, hf:NAME, "
                                         "timm:NAME or torchvision:NAME; or a file of weights (.pt, .pth, .pth.tar, "
                                         ".ckpt, .bin, .th, .safetensors), with --model for its network",
                             json_schema_extra={"argument": "MODEL"})
    data: DataPart = Field(None, description="data set of the calibration images: digits, mnist, cifar10, "
                                             "parquet:PATH, csv:PATH, npz:PATH, datasets:PATH, imagefolder:PATH, "
                                             "file.py:NAME or package.module:NAME (default: the model's training data)")
    split: str = Field("train", description="split of the data set; not the one that is certified later")
    images: Annotated[int, Field(ge=LEAST_IMAGES)] = Field(
        512, description=f"calibration images, evenly spaced over the split, at least {LEAST_IMAGES}")
    sigma: Sigma | None = Field(None, description="noise level on the calibration images: that of the certification "
                                                  "to come, in the data's units (default: the denoiser's, else "
                                                  "the one the model was trained with)")
    noise: NoiseKind | None = Field(None, description="noise kind: grid, gaussian or sound; or file.py:CLASS, "
                                                      "package.module:CLASS (default: as for certify)")
    output: str | None = Field(None, description="name or position of the model's output that holds the logits, where "
                                                 "several could (default: the only one that can)")
    denoiser: DenoiserPart = Field(None, description="directory of a trained denoiser, which is quantised together "
                                                     "with the model behind it; or file.py:CLASS, "
                                                     "package.module:CLASS", json_schema_extra={"metavar": "PATH"})
    seed: Seed = Field(0, description="seed of the calibration noise, in [0, 2^128)")
    out: Local = Field(description="the new model directory, which every verb takes")

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        yield {"noise", "sigma"}, partial(check_sigma, self.noise, self.sigma)
