"""Networks and files of models."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn


class Small(nn.Module):
    """A small network with what train mode changes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.dense = nn.Linear(3 * 36, 4)

    def forward(self, x):
        return self.dense(self.drop(self.norm(self.conv(x)).relu()).flatten(1))


NET = """
    from torch import nn
    from sibling_of_net import CLASSES

    def build(input_shape, *, num_classes=CLASSES, width=2):
        return nn.Sequential(nn.Flatten(), nn.Linear(input_shape[1] * input_shape[2] * width // 2, num_classes))

    ready = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, CLASSES))

    class Estimator:
        classes_ = [0, 1]
        def predict_proba(self, x): return x[:, :2]

    estimator = Estimator()
    def plain(): return lambda images: images.mean((2, 3))
    def text(): return "a network"
    def kind(): return nn.Linear
    def positional(num_classes, /): return num_classes
    def fails(): raise KeyError("weights")
    def leaves(): raise SystemExit(3)
    def lazy():
        import lazy_sibling
        return lazy_sibling.model
    number = 3
"""

WEIGHT = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


def save_onnx(path, nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def floats(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def linear_onnx(path, batch="n", shape=(3, 2, 2), labels=False):
    """Logits = flattened images times WEIGHT; with labels, after an output of class numbers."""
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    outputs = [floats("logits", [batch, 3])]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0))
        outputs.insert(0, floats("label", [batch], TensorProto.INT64))
    return save_onnx(path, nodes, [floats("x", [batch, *shape])], outputs, [numpy_helper.from_array(WEIGHT, "w")])
