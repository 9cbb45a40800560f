"""Networks in files as models: how a batch of images goes through a runtime, and which runtime that is."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from smoothcert.errors import InputError, ModelError, ProcessorWarning
from smoothcert.models.layers import Shape
from smoothcert.models.loaded import exact_batches, fit_file
from smoothcert.smoothing.adapters import Fit
from smoothcert.smoothing.batching import ANY_BATCH, BatchSizes
from smoothcert.smoothing.engines.protocol import Refused, refuse_on_error
from smoothcert.smoothing.engines.runtimes import (
    OnnxSession,
    OpenvinoSession,
    check_rows,
    depends_on_place,
    describe_bf16,
    describe_runtime,
    fixed_batch,
)
from smoothcert.smoothing.files import Runtime

INPUTS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}
_SCORES = ("float", "double", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")

Session = OnnxSession | OpenvinoSession


class FileSource(Protocol):
    """The network of a file, as a runtime is given it.

    Attributes:
        name: the file's. runtimes: those that run it, the default first.
        wide: of an integer network, the layers whose products could exceed 16 bits in pairs, "" where none could;
            None where the network is none.
    """

    @property
    def name(self) -> str: ...

    @property
    def runtimes(self) -> tuple[str, ...]: ...

    @property
    def wide(self) -> str | None: ...

    def session(
        self, runtime: str, rows: int, shape: tuple[int, ...], precision: str = "float32", study: bool = False,
    ) -> Session:
        """Compile it for batches (rows, *shape) alone. Raises what runtimes raise."""
        ...


class FileModel:
    """A network in a file as a model: float32 (N, *shape) -> (N, K), for any N, on the device of the inputs.

    It gives no gradients, and raises ModelError for images that require them.

    Attributes:
        classes_: the classes of its outputs, if the file names them.
        runtime, rows: see `smoothcert.smoothing.files.NetworkFile`.
        input_dtype: the type to which images are cast.
    """

    classes_: tuple[int | str, ...] | None = None

    def __init__(self, source: FileSource, session: Session, images: Any, outputs: Sequence[str]) -> None:
        self.fit, self.runtime, self.rows = Fit(), None, None
        self.input_dtype, self.outputs = INPUTS[images.type], list(outputs)
        self._source, self._session, self._flat = source, session, len(images.shape) == 2

    runtime: Runtime | None
    rows: int | None

    def __call__(self, images: Tensor) -> Tensor:
        if images.requires_grad and torch.is_grad_enabled():
            raise ModelError("a network in a file gives no gradients, which attacks and training need: take the attack "
                             "stein, which asks only for answers, or attack the torch model with --save-adversaries "
                             "and let this one predict them, with --adversaries")
        return self.fit.logits(self.run, images)

    def run(self, batch: Tensor) -> dict[str, np.ndarray]:
        """Return the wanted outputs, by name, for one batch of a size that the file takes."""
        found = self._compute(self._session, batch)
        if self.runtime is not None:
            check_rows(found, len(batch), self.runtime.name)
        return found

    def _compute(self, session: Session, batch: Tensor) -> dict[str, np.ndarray]:
        array = np.ascontiguousarray(batch.detach().float().cpu().numpy()).astype(self.input_dtype, copy=False)
        return session.run(array.reshape(len(array), -1) if self._flat else array, self.outputs)

    def use_fit(self, fit: Fit) -> None:
        """Run as `fit` describes from now on, and compute no other output than the one that it names."""
        self.fit, self.outputs = fit, [fit.output] if fit.output else self.outputs

    def bind(self, runtime: str, shape: tuple[int, ...]) -> None:
        """Run from now on in one runtime, in batches of one size, which makes it the integer network that it is.

        Raises Refused where the runtime cannot run it, or would cut its products here.
        """
        rows = self._fixed_rows(shape)
        session = self._open(runtime, rows, shape, "float32", study=True)
        if depends_on_place(self._pass(session, rows, runtime), shape, rows):
            rows = 1
            session = self._open(runtime, rows, shape, "float32", study=True)
        self.runtime = describe_runtime(runtime, self._source.wide or "", session.float_layers)
        if self.runtime.instructions != "x86":
            why = (f"products of its weights exceed 16 bits in pairs ({self._source.wide})" if self._source.wide
                   else f"{runtime} runs {session.float_layers} in float32" if session.float_layers
                   else "its answers on other kinds of processors have not been compared")
            warnings.warn(f"{self._source.name} is certified for processors of the class "
                          f"{self.runtime.instructions!r}, and its run goes on only there: {why}", ProcessorWarning,
                          stacklevel=5)
        self._session, self.rows, self.fit = session, rows, replace(self.fit, batch=BatchSizes(rows, rows))

    def open(self, engine: str, shape: tuple[int, ...], rows: int, precision: str) -> Callable[[Tensor], Tensor]:
        """Return a pass by another engine; see `smoothcert.smoothing.files.NetworkFile`."""
        if engine not in self._source.runtimes:
            raise Refused(f"{self._source.name} is run by {' or '.join(self._source.runtimes)}")
        if precision == "bf16":
            describe_bf16()
        fixed = self.runtime is not None or precision == "bf16"
        rows = self._fixed_rows(shape) if fixed else self.fit.batch.most or rows
        session = self._open(engine, rows, shape, precision, self.runtime is not None)
        run = self._pass(session, rows, engine)
        if fixed and depends_on_place(run, shape, rows):
            raise Refused("a row's answer depends on its place in the batch")
        if self.runtime is not None:
            describe_runtime(engine, self._source.wide or "", session.float_layers)
        return run

    def _fixed_rows(self, shape: tuple[int, ...]) -> int:
        return self.fit.batch.most or self.fit.batch.up_from(fixed_batch(shape))

    def _open(self, runtime: str, rows: int, shape: tuple[int, ...], precision: str, study: bool) -> Session:
        row = (int(np.prod(shape)),) if self._flat else tuple(shape)
        with refuse_on_error(f"{runtime} cannot load {self._source.name}"):
            return self._source.session(runtime, rows, row, precision, study)

    def _pass(self, session: Session, rows: int, runtime: str) -> Callable[[Tensor], Tensor]:
        """Return a pass of a session that takes so many rows, for any number of images."""
        fit = replace(self.fit, batch=BatchSizes(rows, rows, alone=self.fit.batch.alone))

        def run(batch: Tensor) -> dict[str, np.ndarray]:
            found = self._compute(session, batch)
            check_rows(found, len(batch), runtime)
            return found

        return lambda images: fit.logits(run, images)


def open_file(
    source: FileSource, session: Session, spec: str, num_classes: int | None, input_shape: Shape | None,
    output: str | int | None, runtime: str | None,
) -> tuple[FileModel, Shape | None]:
    """Return the model of a file, and the shape of one input if the file fixes it; one that takes flattened inputs
    (N, D) takes any of D values.

    Args:
        session: the file in its default runtime, for any batch.
        runtime: the one that is to run an integer network; None takes the file's default.
    Raises:
        ModelError: a network that does not take images of floats (of input_shape, if known), does not return logits, or
            is an integer one that this processor would compute otherwise. InputError: a runtime that cannot run such
            files.
    """
    if source.wide is not None and runtime is not None and runtime not in source.runtimes:
        raise InputError(f"engine: {spec} is run by {' or '.join(source.runtimes)}, got {runtime}")
    images = _image_input(spec, session.inputs)
    outputs = session.outputs
    listed = ", ".join(f"{value.name}: {value.type} {list(value.shape)}" for value in outputs)
    batch, *sizes = images.shape
    fixed = all(isinstance(size, int) for size in sizes)
    numeric = [value.name for value in outputs if value.type in {f"tensor({kind})" for kind in _SCORES}]
    if not numeric:
        raise ModelError(f"{spec} has no output of numbers (N, K), only {listed}{_hint(listed)}")
    model = FileModel(source, session, images, numeric)
    shape = None if len(sizes) == 1 or not fixed else tuple(sizes)
    tried = input_shape or (tuple(sizes) if fixed else None) if len(sizes) == 1 else shape or input_shape
    if len(sizes) == 1 and fixed and input_shape and math.prod(input_shape) != sizes[0]:
        raise ModelError(f"{spec} takes inputs of {sizes[0]} values, but the data have shape {input_shape}, of "
                         f"{math.prod(input_shape)}")
    declared = BatchSizes(batch, batch) if isinstance(batch, int) and batch > 0 else ANY_BATCH
    model.use_fit(_fit(spec, model, tried, outputs, listed, num_classes, output, declared))
    if source.wide is not None:
        if tried is None:
            raise ModelError(f"{spec} is an integer network for inputs of any size: give input_shape")
        try:
            model.bind(runtime or source.runtimes[0], tried)
        except Refused as reason:
            raise ModelError(f"{spec} is an integer network that {runtime or source.runtimes[0]} cannot run here: "
                             f"{reason}") from reason
    return model, shape


def _fit(
    spec: str, model: FileModel, shape: Shape | None, outputs: Sequence[Any], listed: str, num_classes: int | None,
    output: str | int | None, batch: BatchSizes,
) -> Fit:
    """Return how the logits come out of the file, found by a trial, or as declared if it takes images of any size."""
    if shape is not None:
        try:
            fit = fit_file(model.run, shape, num_classes, output, batch)
        except ModelError as error:
            raise ModelError(f"{spec} returns {listed}: {error}{_hint(listed)}") from error
    else:
        names = [value.name for value in outputs if value.name in model.outputs]
        flat = [value.name for value in outputs if value.name in names and len(value.shape) == 2]
        found = [name for name in names if name == output] if output is not None else flat or names
        if len(found) != 1:
            raise ModelError(f"{spec} takes inputs of any size and returns {listed}: name the one with the logits "
                             f"by --output NAME (in Python, output=NAME), or give input_shape")
        fit = Fit(found[0], batch)
    return replace(fit, batch=exact_batches(fit.batch, model.input_dtype))


def _image_input(spec: str, inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs)
        raise ModelError(f"{spec} takes {len(inputs)} inputs ({names}); a model takes one, the images")
    if inputs[0].type not in INPUTS or len(inputs[0].shape) < 2:
        raise ModelError(f"{spec} takes a {inputs[0].type} of shape {inputs[0].shape}; a model takes floats (N, "
                         f"*shape), (N, C, H, W) of images in [0, 1] plus noise, or (N, D) flattened: export it with "
                         f"such an input, and put conversions to other inputs inside")
    return inputs[0]


def _hint(listed: str) -> str:
    return "; with skl2onnx, convert with the option zipmap=False" if "seq(" in listed or "map(" in listed else ""

