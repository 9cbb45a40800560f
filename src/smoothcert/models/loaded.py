"""Users' own models, loaded from a factory in Python, a file, or a hub."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smoothcert.checks import check_count, check_shape
from smoothcert.errors import FileError, InputError, ModelError
from smoothcert.io.paths import WEIGHTS_SUFFIXES, is_weights_file
from smoothcert.models.layers import Shape, normalise_input
from smoothcert.models.registry import MODELS
from smoothcert.parts import names_code
from smoothcert.smoothing.adapters import Fit, behind_fit, find_fit
from smoothcert.smoothing.batching import BatchSizes
from smoothcert.smoothing.real import add_zeros

HUBS = ("hf", "timm", "torchvision")
FILES = ("onnx", "xml", "pt2")
"""Suffixes of files that hold a whole model, which are also their kinds."""
SKLEARN = "sklearn"
"""What stands before the file of a model of scikit-learn, and the kind of that."""

MODEL_FORMS = (
    "package.module:factory (mymodels.vision:build)",
    "path/file.py:factory (models/net.py:build)",
    "path/file.onnx (exports/net.onnx)",
    "path/file.xml, OpenVINO's IR, with its weights in path/file.bin (exports/net.xml)",
    "path/file.pt2, a torch.export program (exports/net.pt2)",
    "sklearn:path/file.skops, a model of scikit-learn (sklearn:exports/forest.skops)",
    f"path/file{', '.join(WEIGHTS_SUFFIXES)}: weights, of a network that is named beside them (runs/net.pth.tar)",
    "hf:NAME (hf:microsoft/resnet-50, or a local folder)",
    "timm:NAME (timm:resnet50.a1_in1k)",
    "torchvision:NAME (torchvision:resnet50)",
)
"""The accepted forms of a model spec, each with an example."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A user's model, ready for use.

    Attributes:
        model: a torch module in eval mode, an object with `predict_proba`, or another callable (N, *shape) -> (N, K).
        spec: the text that it was loaded from, as the user wrote it.
        kind: "factory", "object", "onnx", "xml", "pt2", "sklearn", "weights", "hf", "timm" or "torchvision".
        content: bytes whose SHA-256 identifies the code or the file. They determine the model of a file ("onnx", "xml",
            "pt2", "sklearn"); other torch modules have weights as well, and any other callable from a factory may hold
            any state. None where the code is smoothcert's own.
        input_shape: of one input, if the file fixes it; None if the model takes others or does not say.
        input_dtype: the type to which a file's model casts images, "float32" for any other model.
        code: the factory or hub name whose code made the model; None where a file or smoothcert's own code did.
        note: how the weights of a file became the network's; "" for other models.
        again: calls a factory once more; None for whatever a factory did not make.
        activations: the type in which a file whose weights alone have few bits is computed; None for other models.
    """

    model: Callable[..., Any] | Any
    spec: str
    kind: str
    content: bytes | None = field(repr=False)
    input_shape: Shape | None = None
    input_dtype: str = "float32"
    code: str | None = None
    note: str = ""
    again: Callable[[], Any] | None = field(default=None, repr=False)
    activations: str | None = None


def exact_batches(sizes: BatchSizes, dtype: str) -> BatchSizes:
    """Return the batches in which a model of this type judges each image by itself.

    Sums in float16 and bfloat16 are rounded so coarsely that their order, which depends on the batch, changes votes:
    there each image gets a batch of its own.
    """
    return replace(sizes, alone=True) if dtype in ("float16", "bfloat16") else sizes


def fit_file(
    run: Callable[..., Any], shape: Sequence[int], num_classes: int | None, output: str | int | None, batch: BatchSizes
) -> Fit:
    """Return how the answers of a file's model become logits, or, where num_classes is 1, real values.

    Raises ModelError as `find_fit` does.
    """
    if num_classes == 1:
        return find_fit(lambda rows: add_zeros(run(rows), len(rows)), shape, None, output, batch)
    return find_fit(run, shape, num_classes, output, batch)


def read_model_file(path: Path) -> bytes:
    """Return the bytes of a file. Raises FileError, naming it, if it is missing or unreadable."""
    if not path.is_file():
        raise FileError(f"there is no model file {path}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"the model file {path} cannot be read: {error}") from error


def load_model(
    spec: Any, *, num_classes: int | None = None, input_shape: Any = None, trust: bool = False,
    output: str | int | None = None, network: str | None = None, options: Mapping[str, Any] | None = None,
    weights: str | None = None, mean: Sequence[float] | None = None, std: Sequence[float] | None = None,
    runtime: str | None = None,
) -> LoadedModel:
    """Load a user's model.

    Args:
        spec: one of MODEL_FORMS, whose factory may also be a ready module or an object with `predict_proba`; or the
            model or factory itself (see `smoothcert.models.given.load_given`).
        num_classes, input_shape: K (1 for real values in place of scores) and the shape of one input, if known; a
            factory gets those that its signature names, and the shape in a file is compared. Weights know their own K.
        trust: let a .pt2 file run code: torch unpickles parts of it, and evaluates its expressions; let a .skops file
            name types that are not known to be harmless. A factory is code that the caller names, so it needs no
            permission; ONNX files, files of weights and the hubs' weights cannot run code.
        output: name or position of the output that holds the logits, if several could.
        network: of a file of weights, the network that they are of: one of `model_names()` (which needs input_shape), a
            factory, timm:NAME or torchvision:NAME.
        options: options of that network.
        weights: the entry of that file, where several fit: a key (`state_dict_ema`), or the beginning of names.
        mean, std: a normalisation to stand in front of the model: one number a channel, or one for all; mean alone is
            subtracted. None where it is inside the model already.
        runtime: of an integer network in a file, the runtime that runs it and is part of what it is: "onnxruntime"
            (for ONNX files, by default) or "openvino". Other models are not concerned.
    Returns:
        A LoadedModel. A torch module is put in eval mode. A file takes any number of images, whatever batches it was
        made for (split and padded), and casts them to its own type; a hub's model has its mean and std inside and
        resizes images to the size that it was trained on.
    Raises:
        InputError: a spec of no known form, or bad values. FileError: a file that is missing or corrupt.
        UnknownNameError: no such factory. MissingExtraError: an optional package is not installed.
        ModelError: code that fails or is not trusted, weights of another network, or a model that does not take images
        or does not return logits.
    """
    kind = "object" if _is_object(spec) else _kind(spec)
    if kind is None:
        forms = "\n".join(f"  - {form}" for form in MODEL_FORMS)
        raise InputError(f"{spec!r} does not name a model; the accepted forms are\n{forms}")
    if num_classes is not None:
        check_count("num_classes", num_classes)
    shape: Shape | None = None if input_shape is None else check_shape("input_shape", input_shape)
    if kind != "weights" and (network or options or weights):
        raise InputError(f"network, options and weights go with a file of weights ({', '.join(WEIGHTS_SUFFIXES)}); "
                         f"{spec} is none")
    if kind in HUBS and mean is not None:
        raise InputError(f"mean and std: {spec} has the normalisation of its hub inside already: leave them out")
    if kind == "weights":
        from smoothcert.models.weights import load_weights

        loaded = load_weights(spec, network, num_classes, shape, options, weights, mean, std)
    else:
        loaded = _load_kind(spec, kind, num_classes, shape, trust, output, runtime)
        loaded = replace(loaded, model=normalise_input(loaded.model, mean, std, shape, spec))
    if output is None or kind in FILES:
        return loaded
    if not callable(loaded.model):
        raise InputError(f"output: {spec} has predict_proba, which returns one array: leave output out")
    return replace(loaded, model=behind_fit(loaded.model, Fit(str(output))))


def _load_kind(
    spec: Any, kind: str, num_classes: int | None, shape: Shape | None, trust: bool, output: str | int | None,
    runtime: str | None,
) -> LoadedModel:
    """Return the model that a spec names by itself."""
    if kind in FILES:
        return _load_file(spec, kind, Path(spec).expanduser(), num_classes, shape, trust, output, runtime)
    if kind == SKLEARN:
        from smoothcert.models.sklearn_file import load_sklearn

        return load_sklearn(spec, Path(spec.partition(":")[2]).expanduser(), shape, trust)
    if kind == "object":
        from smoothcert.models.given import load_given

        return load_given(spec, num_classes, shape)
    if kind == "factory":
        from smoothcert.models.factory import load_factory

        target, _, attribute = spec.rpartition(":")
        return replace(load_factory(spec, target, attribute, num_classes, shape), code=spec)
    from smoothcert.models.hub import load_from_hub

    return replace(load_from_hub(spec, kind, spec.partition(":")[2]), code=spec)


def _load_file(
    spec: str, kind: str, path: Path, num_classes: int | None, input_shape: Shape | None, trust: bool,
    output: str | int | None, runtime: str | None,
) -> LoadedModel:
    """Return the model in a file of one of FILES. Raises ModelError if it takes inputs of another shape."""
    content = read_model_file(path)
    if kind == "pt2":
        from smoothcert.models.exported import load_program

        loaded = load_program(spec, path, content, num_classes, input_shape, trust, output)
    elif kind == "xml":
        from smoothcert.models.openvino_ir import load_ir

        loaded = load_ir(spec, path, content, num_classes, input_shape, output, runtime)
    else:
        from smoothcert.models.onnx_model import load_onnx

        loaded = load_onnx(spec, path, content, num_classes, input_shape, output, runtime)
    takes = loaded.input_shape
    if takes and input_shape and takes != input_shape:
        last = takes == (*input_shape[1:], input_shape[0])
        advice = "; its channels are the last axis: export it with a transpose in front" if last else ""
        raise ModelError(f"{path} takes inputs of shape {takes}, but the data have shape {input_shape}{advice}")
    return loaded


def model_sources(spec: Any, model: Any) -> dict[str, str]:
    """Return the SHA-256 of the local files with the code of a loaded model, by module name; see `local_sources`.

    Args:
        spec: the text that it was loaded from, the name of a network that a package registers, or the object that was
            given. model: the result.
    """
    if not isinstance(spec, str):
        from smoothcert.models.given import given_sources

        return given_sources(spec, model)
    if spec in MODELS:
        return MODELS.sources(spec)
    from smoothcert.models.factory import factory_sources

    return factory_sources(spec.rpartition(":")[0], model) if _kind(spec) == "factory" else {}


def is_factory(text: str) -> bool:
    """Tell if a text is a factory in Python, package.module:factory or path/file.py:factory."""
    return _kind(text) == "factory"


def is_model_spec(text: Any) -> bool:
    """Tell if a text has one of MODEL_FORMS; the model itself need not exist.

    >>> is_model_spec("net.py:build"), is_model_spec("timm:resnet50"), is_model_spec("cnn"), is_model_spec("runs/1")
    (True, True, False, False)
    """
    return _kind(text) is not None


def label_model(spec: Any) -> str:
    """Return what stores and messages call a model: its spec, or the class or function that was given."""
    if isinstance(spec, str):
        return spec
    from smoothcert.models.given import label_given

    return label_given(spec)


def _is_object(spec: Any) -> bool:
    """Tell whether a model or factory itself is given, rather than its name."""
    return not isinstance(spec, str) and (callable(spec) or hasattr(spec, "predict_proba") or hasattr(spec, "predict"))


def _kind(spec: Any) -> str | None:
    """Return the form of a spec: "factory", "weights", "sklearn", or one of FILES or HUBS; None if it has none."""
    if not isinstance(spec, str):
        return None
    prefix, _, name = spec.partition(":")
    if prefix in (*HUBS, SKLEARN):
        return prefix if name else None
    suffix = Path(spec).suffix.lower()
    if suffix[1:] in FILES:
        return suffix[1:]
    if is_weights_file(spec):
        return "weights"
    return "factory" if names_code(spec) else None
