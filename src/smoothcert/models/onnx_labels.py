"""What an ONNX file says of its classes."""

from collections.abc import Iterator
from typing import Any

from smoothcert.classes import Label, names_in_text

KEYS = ("id2label", "names", "class_names", "classes", "labels")
"""Entries of a file's metadata that may list its classes."""

_LABELS = ("classlabels_strings", "classlabels_int64s", "classlabels_ints")


def onnx_labels(model: Any, output: str) -> tuple[Label, ...] | None:
    """The class of each column of a model's `output`; None where the file does not say.

    In this order: the labels of the classifier (a node of ai.onnx.ml) that makes the output, or of the ZipMap that
    reads it; the list from which another output takes the label of the largest score, as skl2onnx writes it; a list in
    the file's metadata. Where several nodes differ in their labels, the next is tried.
    """
    behind = list(_behind(model.graph, output))
    maps = [node for node in model.graph.node if node.op_type == "ZipMap" and output in node.input]
    others = [value.name for value in model.graph.output if value.name != output]
    tables = [node for other in others for node in _behind(model.graph, other) if node not in behind]
    told = {entry.key.lower(): entry.value for entry in model.metadata_props}
    for found in ({_labels_of(node) for node in [*behind, *maps]}, {_table_of(model.graph, node) for node in tables}):
        if len(found - {()}) == 1:
            return (found - {()}).pop()
    return next((names for key in KEYS if key in told and (names := names_in_text(told[key]))), None)


def _behind(graph: Any, output: str) -> Iterator[Any]:
    """The nodes that an output is computed by."""
    makers = {name: node for node in graph.node for name in node.output if name}
    waiting, seen = [output], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        yield makers[name]
        waiting += makers[name].input


def _labels_of(node: Any) -> tuple[Label, ...]:
    if node.domain != "ai.onnx.ml":
        return ()
    for attribute in node.attribute:
        if attribute.name in _LABELS and (attribute.strings or attribute.ints):
            return _texts(attribute.strings) or tuple(attribute.ints)
    return ()


def _table_of(graph: Any, node: Any) -> tuple[Label, ...]:
    """The constant list of texts or whole numbers that a node picks elements of."""
    if node.op_type != "ArrayFeatureExtractor":
        return ()
    stored = [tensor for tensor in graph.initializer if tensor.name == node.input[0] and len(tensor.dims) == 1]
    if not stored:
        return ()
    if stored[0].string_data:
        return _texts(stored[0].string_data)
    from onnx import numpy_helper

    values = numpy_helper.to_array(stored[0])
    return tuple(values.tolist()) if values.dtype.kind == "i" else ()


def _texts(strings: Any) -> tuple[str, ...]:
    return tuple(text.decode("utf-8", "replace") for text in strings)
