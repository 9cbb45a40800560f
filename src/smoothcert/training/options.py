"""Options of `train`."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from smoothcert.config.base import DataConfig, LogConfig, MachineConfig, Part
from smoothcert.config.fields import (
    Channels,
    Count,
    DataPart,
    DenoiserPart,
    Local,
    ObjectivePart,
    Options,
    Probability,
    Real,
    Seed,
    Share,
    Sigma,
    Weight,
)
from smoothcert.config.model import check_normalisation, check_weights_options
from smoothcert.errors import InputError

if TYPE_CHECKING:  # the objectives import torch, which --help does without
    from smoothcert.objectives import Objective


class TrainConfig(DataConfig, MachineConfig, LogConfig):
    """Options of `smoothcert train`."""

    data: DataPart = Field("digits", description="data set: digits, mnist, cifar10, parquet:PATH, csv:PATH, npz:PATH, "
                                                   "datasets:PATH, imagefolder:PATH, labels:FILE, file.py:NAME or "
                                                   "package.module:NAME")
    model: str | None = Field(None, description="linear, mlp, cnn, lenet, cnn3, conv1d (series), airbench, "
                                                "resnet18, resnet20, resnet50, resnet110 or vgg16; or file.py:factory, "
                                                "package.module:factory, hf:NAME, timm:NAME, torchvision:NAME "
                                                "(default: that of init, else cnn, conv1d for series, mlp for other "
                                                "shapes); a denoiser: energy-residual, "
                                                "energy-scalar or direct (default: energy-residual)")
    model_option: Options = Field(default_factory=dict, description="option of the model, KEY=VALUE (repeatable), such "
                                                                    "as activation=elu")
    normalise: Literal["auto", "standard", "centre", "none"] = Field(
        "auto", description="layer in front of the network: standard ((x - mean) / std), centre (x - mean) or none; "
                            "auto uses that of init, else none for grey images and standard for others and for inputs "
                            "that are no images")
    objective: ObjectivePart = Field("gaussian", description="training objective: gaussian, clean, smoothadv, adre, "
                                                             "stability, trades, adversarial, macer, consistency, "
                                                             "smoothmix, cat-rs, nal, wrm or xhat (behind a denoiser); "
                                                             "deen or denoise to train a denoiser; or file.py:CLASS, "
                                                             "package.module:CLASS")
    denoiser: DenoiserPart = Field(None, description="directory of a trained denoiser, to train the classifier behind; "
                                                     "it becomes a frozen part of the model; or file.py:CLASS, "
                                                     "package.module:CLASS", json_schema_extra={"metavar": "PATH"})
    classifier: str | None = Field(None, description="model whose votes are the targets of objective cat-rs, or for "
                                                     "the stability term of objective denoise: a model directory, or "
                                                     "another torch model that certify accepts")
    objective_option: Options = Field(default_factory=dict, description="option of the objective, KEY=VALUE "
                                                                        "(repeatable)")
    sigma: Sigma | None = Field(None, description="noise level of the objective, of validation and, by default, of "
                                                  "certification, in the data's units, such as 0.25 or "
                                                  "64/255 (default: the denoiser's)")
    epochs: Count = Field(10, description="passes over the training images")
    batch_size: Count = Field(256, description="images per step, over all processes; deen and denoise: 128")
    optimizer: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="sgd (Nesterov momentum), adam or adamw; deen and denoise: adam")
    lr: Sigma | None = Field(None, description="peak learning rate (default: 0.1 for sgd, 0.001 for adam and adamw)")
    momentum: Share = Field(
        0.9, description="momentum of sgd, or beta_1 of adam; onecycle varies it")
    weight_decay: Weight = Field(1e-4, description="weight decay; deen and denoise: 0")
    schedule: Literal["onecycle", "cosine", "step", "constant"] = Field(
        "onecycle", description="learning rate schedule: onecycle, cosine, step or constant; deen and denoise: cosine")
    warmup: Weight = Field(0.0, description="epochs of linear warm-up from 0 before the schedule (onecycle has its "
                                            "own)")
    step_epochs: Count = Field(30, description="epochs between drops of the step schedule")
    step_factor: Annotated[Real, Field(gt=0, le=1)] = Field(0.1, description="factor of each drop")
    clip_norm: Sigma | None = Field(None, description="clip the gradient's l2 norm to this (default: no clipping; "
                                                      "deen and denoise: 5)")
    autocast: Literal["none", "auto", "bf16", "fp16"] = Field(
        "none", description="precision in training: none (float32), bf16, fp16 or auto, which is bf16 where the "
                            "processor or GPU has units for it, else none")
    workers: Count | None = Field(None, description="processes that share every batch, each with its part of the "
                                                    "processors, or with one GPU (default: as many as the run was "
                                                    "started with, else 1); use torchrun for several machines")
    ema: Probability | None = Field(
        None, description="use an exponential moving average of the weights with this decay per step")
    augment: Literal["auto", "none", "crop", "flip", "crop-flip", "resized-crop", "resized-crop-flip"] = Field(
        "auto", description="augmentation before the noise: none, crop (pad 4), flip, crop-flip, resized-crop (a "
                            "window of 8 % to 100 % of the area, enlarged; as for ImageNet) or resized-crop-flip; auto "
                            "is crop-flip for cifar10 and none for other data")
    validation: Share = Field(
        0.04, description="share of the training images to hold out, which choose the best epoch under noise; 0 trains "
                          "on all images and uses the last epoch")
    max_images: Count | None = Field(None, description="train on at most this many images, evenly spaced (default: "
                                                       "all)")
    mean: Channels | None = Field(None, description="constants of that layer, one number for each channel or one for "
                                                    "all, in place of the data's own")
    std: Channels | None = Field(None, description="its standard deviation; mean alone is only subtracted")
    init: Local | None = Field(None, description="fine-tune: start from the weights of this model directory, or of "
                                                 "this file of weights of the network in model, with a new last layer "
                                                 "where the classes differ")
    new_head: bool = Field(False, description="with init: use a new last layer in any case")
    unlabelled: str | None = Field(None, description="self-training: images whose labels are not used, in the forms "
                                                     "that data has; of data itself, the images left over")
    unlabelled_split: str = Field("train", description="split of the unlabelled images")
    max_unlabelled: Count | None = Field(None, description="use at most this many unlabelled images, evenly spaced "
                                                           "(default: all)")
    pseudo_labels: str | None = Field(None, description="the model that labels the unlabelled images: a model "
                                                        "directory, or any model that certify accepts; or a file of "
                                                        "labels, .npy or .npz")
    unlabelled_weight: Sigma = Field(1.0, description="weight of the mean loss of the pseudo-labelled images, relative "
                                                      "to that of the labelled ones")
    weights: str = Field("best", description="which weights to use of the model directories in init, pseudo-labels and "
                                             "classifier: best or last; of a file of weights the entry")
    output: str | None = Field(None, description="name or position of the output that holds the logits, where the "
                                                 "model of pseudo-labels or classifier has several that could")
    trust: bool = Field(False, description="run the code that these model directories, or a .pt2 file, contain")
    seed: Seed = Field(0, description="run seed in [0, 2^128)")
    out: Local = Field(description="model directory; the same command resumes an interrupted run")

    def build_objective(self, classifier: Any = None) -> "Objective":
        """Return the objective that the options name; `classifier` is the model of that option, where it is given.

        Raises InputError as `smoothcert.objectives.build_objective` does.
        """
        from smoothcert.objectives import build_objective

        if "classifier" in self.objective_option:
            raise InputError("objective_option: give the classifier by its model directory: --classifier DIR")
        if "sigma" in self.objective_option:
            raise InputError("objective_option: give the noise level as --sigma")
        beside = {} if classifier is None else {"classifier": classifier}
        return build_objective(self.objective, self.sigma, **self.objective_option, **beside)

    def _parts(self) -> Iterator[Part]:
        yield from super()._parts()
        if self.sigma is not None:  # else it is that of a denoiser, which is not read yet
            stand_in = None if self.classifier is None else import_module("torch.nn").Identity()
            yield {"objective", "objective_option", "sigma", "classifier"}, partial(self.build_objective, stand_in)

    def _contradictions(self) -> Iterator[str]:
        if self.warmup >= self.epochs:
            yield (f"warmup must be shorter than the training, which has {self.epochs} epochs, got {self.warmup:g}: "
                   f"the learning rate reaches lr only after it")
        if self.new_head and self.init is None:
            yield "new-head replaces the last layer of another model: give init, that model's directory"
        if self.unlabelled is not None and self.pseudo_labels is None:
            yield "unlabelled images need labels: give pseudo-labels, a model that labels them, or a file of labels"
        given = {"pseudo-labels": self.pseudo_labels is not None, "max-unlabelled": self.max_unlabelled is not None,
                 "unlabelled-weight": "unlabelled_weight" in self.model_fields_set,
                 "unlabelled-split": "unlabelled_split" in self.model_fields_set}
        if self.unlabelled is None and any(given.values()):
            yield (f"{' and '.join(name for name, is_given in given.items() if is_given)} apply to unlabelled images: "
                   f"give unlabelled, the set that holds them")
        yield from check_weights_options(str(self.init or ""), self.weights, None, {})
        yield from check_normalisation(self.mean, self.std)
        if self.mean and self.normalise != "auto":
            yield f"normalise is {self.normalise}, and mean says what it subtracts: give one of them"
