"""Checks of a runtime on integer networks: their products are exact, whatever the batch and the size of the weights.

The network is a convolution and a matrix product on images (16, 4, 4) whose every value is known in integer arithmetic.
Scales are powers of two, so that float32 holds each product; weights are even and the bias is odd, so that no value
lies halfway between two integers, where runtimes may round either way.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from smoothcert.errors import MissingExtraError, ModelError, ProcessorWarning
from smoothcert.models import load_model
from smoothcert.selftest.finding import Finding, Planned

SHAPE = (16, 4, 4)
_CLASSES, _CHANNELS, _ROWS = 10, 8, 300
_LARGEST = {"7-bit weights": 64, "8-bit weights": 126}
_SHIFT = 14  # bits that are dropped between the layers


@dataclass(frozen=True)
class IntegerNetwork:
    """Weights of an integer network: (8, 16, 3, 3) of the convolution, (128, 10) of the product; even, int8."""

    convolution: np.ndarray
    product: np.ndarray

    @classmethod
    def of_largest(cls, largest: int) -> "IntegerNetwork":
        """Return a network whose weights reach +-largest; the first channels have all of one sign."""
        rng = np.random.default_rng(largest)
        convolution = largest * rng.choice([-1, 1], (_CHANNELS, SHAPE[0], 3, 3))
        convolution[:2] = [[[[largest]]], [[[-largest]]]]
        product = 2 * rng.integers(-largest // 2, largest // 2 + 1, (_CHANNELS * 16, _CLASSES))
        return cls(convolution.astype(np.int8), product.astype(np.int8))

    def logits(self, levels: np.ndarray) -> np.ndarray:
        """Return the logits (N, 10), exact, of images (N, 16, 4, 4) of levels 0 ... 255, by integer arithmetic."""
        padded = np.pad(levels.astype(np.int64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        sums = np.einsum("nchwij,ocij->nohw", windows, self.convolution.astype(np.int64), optimize=True) + 1
        rounded = np.clip((sums + (1 << (_SHIFT - 1)) >> _SHIFT), -128, 127)
        return (rounded.reshape(len(levels), -1) @ self.product.astype(np.int64)).astype(np.float64) / 64

    def write(self, path: Path) -> None:
        """Write the network as an ONNX file in QDQ format."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        scales = {"sx": 2.0**-8, "sw": 2.0**-7, "sb": 2.0**-15, "sy": 2.0 ** (_SHIFT - 15), "sp": 2.0 ** (9 - _SHIFT)}
        values = {**{name: np.float32(value) for name, value in scales.items()}, "zx": np.uint8(0), "zy": np.uint8(128),
                  "w": self.convolution, "b": np.ones(_CHANNELS, np.int32), "p": self.product}
        nodes = [("QuantizeLinear", "x sx zx", "xq"), ("DequantizeLinear", "xq sx zx", "xd"),
                 ("DequantizeLinear", "w sw", "wd"), ("DequantizeLinear", "b sb", "bd"), ("Conv", "xd wd bd", "c"),
                 ("QuantizeLinear", "c sy zy", "cq"), ("DequantizeLinear", "cq sy zy", "cd"), ("Flatten", "cd", "f"),
                 ("DequantizeLinear", "p sp", "pd"), ("MatMul", "f pd", "logits")]
        graph = helper.make_graph(
            [helper.make_node(kind, given.split(), [made]) for kind, given, made in nodes], "integers",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *SHAPE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", _CLASSES])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()])
        graph.node[4].attribute.append(helper.make_attribute("pads", [1] * 4))
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def plan_integer_checks(runtime: str, named: bool) -> list[Planned]:
    """Return the checks of a runtime; `named`: it was asked for, so it must not be passed over."""
    return [Planned.certain(f"engine {runtime}", f"an integer network of {words}", check_products, runtime, largest,
                            named) for words, largest in _LARGEST.items()]


def check_products(runtime: str, largest: int, named: bool) -> Finding:
    """Check that a runtime gives every logit of a network exactly, in batches of 1, 7 and all rows."""
    network = IntegerNetwork.of_largest(largest)
    levels = np.random.default_rng(0).integers(0, 256, (_ROWS, *SHAPE))
    levels[:3] = np.array([255, 0, 128]).reshape(3, 1, 1, 1)
    wanted = torch.from_numpy(network.logits(levels))
    images = torch.from_numpy((levels / 256).astype(np.float32))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", ProcessorWarning)
        path = Path(folder) / "integers.onnx"
        try:
            network.write(path)
            model = load_model(str(path), num_classes=_CLASSES, input_shape=SHAPE, runtime=runtime).model
        except (ImportError, MissingExtraError) as error:
            return Finding(False if named else None, str(error))
        except ModelError as error:  # a processor without VNNI, where such a network is refused as it should be
            return Finding(None, str(error))
        wrong = 0
        for size in (1, 7, _ROWS):
            found = torch.cat([model(part) for part in images[: 20 * size].split(size)]).double()
            wrong += int((found != wanted[: len(found)]).any(dim=1).sum())
    return Finding(wrong == 0, f"{wrong} of {2 * _ROWS - 140} rows unlike integer arithmetic's", "0")
