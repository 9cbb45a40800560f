#!/usr/bin/env bash
# INFERENCE_PRECISION_HINT f32 does not keep OpenVINO from rounding activations to 8 bits where weights are compressed.
#
# One would guess: with the hint f32 (and PERFORMANCE or ACCURACY modes aside) a network whose activations are float32,
# and whose weights alone are stored as int8 with scales, computes in float32 with the dequantised weights.
# What happens (OpenVINO 2026.4.1, CPU with AVX512): on a fully connected layer of 784 inputs the answers are off by .6 %
# of the largest, because DYNAMIC_QUANTIZATION_GROUP_SIZE is not 0 by default and has precedence over the hint. With the
# property set to 0 they are exact within float32. The property cannot be stored in the file.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import sys

sys.modules["openvino_telemetry"] = None
import numpy as np
import openvino
from onnx import helper, numpy_helper

rng = np.random.default_rng(0)
weights, scales = rng.integers(-127, 128, (784, 10)).astype(np.int8), rng.uniform(1e-3, 1e-2, 10).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1), helper.make_node("MatMul", ["x", "d"], ["y"])],
    "g", [helper.make_tensor_value_info("x", 1, [64, 784])], [helper.make_tensor_value_info("y", 1, [64, 10])],
    [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(scales, "s")])
content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
rows = rng.standard_normal((64, 784)).astype(np.float32)
exact = rows.astype(np.float64) @ (weights.astype(np.float64) * scales)
core, found = openvino.Core(), {}
print("openvino", openvino.__version__)
for name, more in (("f32", {}), ("f32, group size 0", {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"})):
    compiled = core.compile_model(core.read_model(content), "CPU", {"INFERENCE_PRECISION_HINT": "f32", **more})
    found[name] = np.abs(compiled(rows)[0] - exact).max() / np.abs(exact).max()
    print(f"{name}: off by up to {found[name]:.2g} of the largest answer")
assert found["f32"] > 1e-3 and found["f32, group size 0"] < 1e-5, found
PY
# Seen: f32 off by up to 0.0063 of the largest answer; with group size 0 by 5.2e-07.
