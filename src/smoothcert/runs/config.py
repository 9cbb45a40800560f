"""What each run takes: one class a verb, one field an option, its text the option's help.

A YAML file and the command line fill the same fields (flags win), and all mistakes are reported together.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from smoothcert.checks import check_known, check_seed, suggestion
from smoothcert.errors import ConfigError, FileError, InputError


def _split(value: Any) -> Any:
    """'1,2,3' -> ['1', '2', '3'], so that lists can be given on a command line."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """['key=value', ...] -> {'key': value}, values read as YAML."""
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(item).partition("=") for item in value]
    if not all(key and equals for key, equals, _ in pairs):
        raise ValueError(f"give KEY=VALUE, got {list(value)}")
    return {key: yaml.safe_load(text) for key, _, text in pairs}


def _known(kind: str, home: str, registry: str) -> AfterValidator:
    """A check that a name is registered; the registry is imported only when a name has to be checked."""

    def check(name: str) -> str:
        import importlib

        return check_known(kind, name, getattr(importlib.import_module(home), registry))

    return AfterValidator(check)


Sigma = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Options = Annotated[dict[str, Any], BeforeValidator(_pairs)]
Floats = Annotated[tuple[float, ...], BeforeValidator(_split)]
Ints = Annotated[tuple[Whole, ...], BeforeValidator(_split)]
Seed = Annotated[int, AfterValidator(check_seed)]
Method = Annotated[str, _known("method", "smoothcert.stats", "METHODS")]
NoiseKind = Annotated[str, _known("noise", "smoothcert.noise", "NOISES")]
Engine = Annotated[str, _known("engine", "smoothcert.smoothing.sampling", "ENGINE_NAMES")]
Samples = Annotated[int, Field(ge=1, le=10**10)]
ObjectiveName = Annotated[str, _known("objective", "smoothcert.objectives", "OBJECTIVES")]


class Config(BaseModel):
    """The base of every run's options. Unknown keys are refused; values are never changed after checking."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def gather(cls, flags: dict[str, Any], file: Path | None = None) -> Self:
        """Check the options of a YAML file, overridden by `flags`, and report every mistake at once.

        Raises:
            ConfigError: with all problems. FileError: the YAML file cannot be read.
        """
        return cls.checked({**(read_yaml(file) if file else {}), **flags}, str(file) if file else "the options")

    @classmethod
    def checked(cls, values: dict[str, Any], source: str = "the options") -> Self:
        """As the constructor, but problems come as one ConfigError."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError([cls._explain(dict(e)) for e in error.errors()], source) from None

    @classmethod
    def _explain(cls, error: dict[str, Any]) -> str:
        name = ".".join(str(part) for part in error["loc"]) or "the options together"
        if error["type"] == "extra_forbidden":
            return f"{name}: unknown option{suggestion(name, cls.model_fields)}"
        if error["type"] == "missing":
            return f"{name}: is required ({cls.model_fields[name].description})"
        message = error["msg"].removeprefix("Value error, ")
        got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
        return f"{name}: {message[0].lower()}{message[1:]}{got}"


class DataConfig(Config):
    """How images are found and made ready."""

    data_dir: Path | None = Field(None, description="folder with the data sets' parquet files "
                                                    "(or set the environment variable SMOOTHCERT_DATA_DIR)")
    resize: Count | None = Field(None, description="resize the shorter side to this many pixels, before the noise")
    crop: Count | None = Field(None, description="crop the centre to this many pixels, after resizing")
    num_classes: Annotated[int, Field(ge=2)] | None = Field(
        None, description="number of classes K (default: the model's or the data's)")


class MachineConfig(Config):
    """What the run may use; never part of its results."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where networks run: auto, cpu or cuda")
    threads: Count | None = Field(None, description="processor threads for torch (default: all)")


class SamplingConfig(DataConfig, MachineConfig):
    """What `certify` and `predict` share: which images, which noise, which store."""

    data: str | None = Field(None, description="data set: digits, mnist, cifar10, parquet:PATH or imagefolder:PATH "
                                               "(default: the model's training data, else digits)")
    model: str = Field(description="model directory, package.module:factory, file.py:factory, FILE.pt2, FILE.onnx, "
                                   "hf:NAME, timm:NAME or torchvision:NAME")
    weights: Literal["best", "last"] = Field("best", description="which weights of a model directory: best or last")
    model_id: str | None = Field(None, description="name that identifies a model which is no network and no file, "
                                                   "so that its run can be resumed")
    trust: bool = Field(False, description="run the Python code that a model directory names")
    sigma: Sigma | None = Field(None, description="noise level, in pixel units of [0, 1] "
                                                  "(default: the one the model was trained with)")
    noise: NoiseKind = Field("grid", description="noise kind: grid (nothing leaks through rounding) or gaussian")
    alpha: Probability = Field(0.001, description="failure probability of each answer")
    split: str = Field("test", description="split of the data set")
    start: Whole = Field(0, description="first image")
    every: Count = Field(1, description="take every so-manieth image")
    max_images: Count | None = Field(None, description="at most this many images (default: all)")
    indices: Ints | None = Field(None, description="exactly these images, such as 3,14,15; excludes start, every and "
                                                   "max-images")
    seed: Seed | None = Field(None, description="run seed in [0, 2^128) (default: drawn, and recorded)")
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
    workers: Count = Field(1, description="processes, one thread each (or one GPU each); never changes results")
    out: Path = Field(description="store directory; the same command resumes an interrupted run")


class CertifyConfig(SamplingConfig):
    """Options of `smoothcert certify`."""

    n0: Count | None = Field(None, description="samples that choose the class (default: 100, or 1000 for curve-loss, "
                                               "where they are the pilot)")
    n: Samples | None = Field(None, description="samples that bound its probability, fixed (default: 100000 unless "
                                                "n-max is given)")
    n_max: Samples | None = Field(None, description="sequential: at most this many samples; needs radii or curve-loss")
    curve_loss: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="sequential: size n for each image so that at most this share of the radius at n-max is "
                          "lost, such as 0.01")
    radii: Floats | None = Field(None, description="radii to print, in pixel units, such as 0.5,1,1.5; with n-max: "
                                                   "decide just these, and stop when all are decided")
    method: Method = Field("two-sided", description="procedure: two-sided, cohen or t-certify")
    margin: Annotated[float, Field(ge=0, lt=0.5)] | None = Field(
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


class PredictConfig(SamplingConfig):
    """Options of `smoothcert predict`."""

    n: Samples | None = Field(None, description="samples an image, fixed (default: 1000 unless n-max is given)")
    n_max: Samples | None = Field(None, description="sequential: stop as soon as the answer is sure, after at most "
                                                    "this many samples")

    @model_validator(mode="after")
    def _one_design(self) -> Self:
        if self.n is not None and self.n_max is not None:
            raise ValueError("n fixes the number of samples and n-max bounds a sequential run: give one of them")
        return self


class TrainConfig(DataConfig, MachineConfig):
    """Options of `smoothcert train`."""

    data: str = Field("digits", description="data set: digits, mnist, cifar10, parquet:PATH or imagefolder:PATH")
    model: str | None = Field(None, description="linear, mlp, cnn, lenet, cnn3, resnet20 or resnet110; or "
                                                "file.py:factory, package.module:factory, hf:NAME, timm:NAME, "
                                                "torchvision:NAME (default: that of init, else cnn)")
    model_option: Options = Field(default_factory=dict, description="option of the model, KEY=VALUE (repeatable), such "
                                                                    "as activation=elu")
    normalise: Literal["auto", "standard", "centre", "none"] = Field(
        "auto", description="layer in front of the network: standard ((x - mean) / std), centre (x - mean) or none; "
                            "auto is init's, else standard for colour and none for grey images, as in the literature")
    objective: ObjectiveName = Field("gaussian", description="training objective: gaussian, clean, smoothadv, adre, "
                                                             "stability, trades, adversarial, macer or consistency")
    objective_option: Options = Field(default_factory=dict, description="option of the objective, KEY=VALUE "
                                                                        "(repeatable)")
    sigma: Sigma | None = Field(None, description="noise level of objective, validation and, by default, "
                                                  "certification, in pixel units of [0, 1]")
    epochs: Count = Field(10, description="passes over the training images")
    batch_size: Count = Field(256, description="images a step, on all processes together")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="sgd (Nesterov momentum), adam or adamw")
    lr: Sigma | None = Field(None, description="peak learning rate (default: 0.1 for sgd, 0.001 for adam and adamw)")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9, description="momentum of sgd, beta_1 of adam; onecycle moves it")
    weight_decay: Annotated[float, Field(ge=0)] = Field(1e-4, description="weight decay")
    schedule: Literal["onecycle", "cosine", "step", "constant"] = Field(
        "onecycle", description="learning rate over time: onecycle, cosine, step or constant")
    warmup: Annotated[float, Field(ge=0)] = Field(0.0, description="epochs of linear warm-up from 0 before the "
                                                                   "schedule (onecycle brings its own)")
    step_epochs: Count = Field(30, description="epochs between drops of the step schedule")
    step_factor: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="factor of each drop")
    clip_norm: Sigma | None = Field(None, description="clip the gradient's l2 norm to this (default: no clipping)")
    autocast: Literal["none", "bf16", "fp16"] = Field("none", description="reduced precision in training: none, bf16 "
                                                                          "or fp16")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="keep and use an exponential moving average of the weights, with this decay a step")
    augment: Literal["auto", "none", "crop", "flip", "crop-flip"] = Field(
        "auto", description="augmentation before the noise: none, crop (pad 4), flip or crop-flip; auto is crop-flip "
                            "for cifar10 and none elsewhere")
    validation: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.04, description="share of the training images held out to choose the best epoch under noise")
    max_images: Count | None = Field(None, description="at most this many training images, evenly spaced (default: "
                                                       "all)")
    init: Path | None = Field(None, description="fine-tune: start from the weights of this model directory, with a new "
                                                "last layer where the number of classes differs")
    new_head: bool = Field(False, description="with init: a new last layer in any case")
    unlabelled: str | None = Field(None, description="self-training: images whose labels are not used, in the forms "
                                                     "of data; of data itself, those that are left over")
    unlabelled_split: str = Field("train", description="split of the unlabelled images")
    max_unlabelled: Count | None = Field(None, description="at most this many unlabelled images, evenly spaced "
                                                           "(default: all)")
    pseudo_labels: str | None = Field(None, description="the model that labels the unlabelled images: a model "
                                                        "directory, or any model that certify takes")
    unlabelled_weight: Sigma = Field(1.0, description="weight of the pseudo-labelled images' mean loss beside the "
                                                      "labelled ones'")
    weights: Literal["best", "last"] = Field("best", description="which weights of the model directories of init and "
                                                                 "pseudo-labels: best or last")
    trust: bool = Field(False, description="run the Python code that those model directories name")
    seed: Seed = Field(0, description="run seed in [0, 2^128)")
    out: Path = Field(description="model directory; the same command resumes an interrupted run")

    @model_validator(mode="after")
    def _whole_requests(self) -> Self:
        if self.new_head and self.init is None:
            raise ValueError("new-head replaces the last layer of another model: give init, that model's directory")
        if self.unlabelled is not None and self.pseudo_labels is None:
            raise ValueError("unlabelled images need labels: give pseudo-labels, a model that labels them")
        given = {"pseudo-labels": self.pseudo_labels is not None, "max-unlabelled": self.max_unlabelled is not None,
                 "unlabelled-weight": "unlabelled_weight" in self.model_fields_set,
                 "unlabelled-split": "unlabelled_split" in self.model_fields_set}
        if self.unlabelled is None and any(given.values()):
            raise ValueError(f"{' and '.join(name for name, is_given in given.items() if is_given)}: for unlabelled "
                             f"images only; give unlabelled, the set that holds them")
        return self


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, with dashes in its keys as underscores; safe-loaded."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"the configuration {path} is not valid YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"the configuration {path} must hold KEY: VALUE lines, got {type(content).__name__}")
    return {str(key).replace("-", "_"): value for key, value in content.items()}
