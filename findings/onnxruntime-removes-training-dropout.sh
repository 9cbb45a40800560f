#!/usr/bin/env bash
# ONNX Runtime removes a Dropout that is in training mode, but only where it is not the last node.
#
# One would guess: a Dropout node whose training_mode input is the constant true drops values wherever it stands in
# the graph, at every optimisation level (an optimiser keeps what a graph computes), so that running the model twice
# on one input shows that it is random.
# What happens (onnxruntime 1.32.0, onnx 1.23.2, CPU): at the default level the optimiser takes the node out of the
# middle of a graph, and every run gives the same, undropped answer. As the last node it stays and drops. With
# optimisation off it drops in both places. So equal answers from a session do not prove that a file is deterministic:
# the graph in the file has to be read.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

print("onnx", onnx.__version__, "onnxruntime", ort.__version__)
ROW = np.ones((1, 64), dtype=np.float32)


def model(dropout_last):
    nodes = [helper.make_node("Mul", ["x", "two"], ["doubled"]),
             helper.make_node("Dropout", ["doubled", "ratio", "training"], ["dropped"])]
    if not dropout_last:
        nodes.append(helper.make_node("Mul", ["dropped", "two"], ["again"]))
    values = [numpy_helper.from_array(np.float32(2), "two"), numpy_helper.from_array(np.float32(0.5), "ratio"),
              numpy_helper.from_array(np.array(True), "training")]
    graph = helper.make_graph(
        nodes, "graph", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, ["N", 64])], values)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    made.ir_version = 10
    onnx.checker.check_model(made)
    return made.SerializeToString()


def drops(dropout_last, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    session = ort.InferenceSession(model(dropout_last), options, providers=["CPUExecutionProvider"])
    return any((session.run(None, {"x": ROW})[0] == 0).any() for _ in range(5))


levels = ort.GraphOptimizationLevel
found = {(place, name): drops(place == "last node", level)
         for place in ("last node", "middle") for name, level in
         (("default", levels.ORT_ENABLE_ALL), ("off", levels.ORT_DISABLE_ALL))}
for (place, name), dropped in found.items():
    print(f"Dropout in training mode, {place}, optimisation {name}: {'drops' if dropped else 'drops nothing'}")
expected = {("last node", "default"): True, ("last node", "off"): True, ("middle", "default"): False,
            ("middle", "off"): True}
assert found == expected, found
PY
# Seen: drops, drops, drops nothing, drops.
