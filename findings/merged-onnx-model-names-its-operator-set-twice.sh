#!/usr/bin/env bash
# onnx.compose.merge_models lists the same operator set twice, and then onnxruntime cannot quantise the model.
#
# One would guess: two networks of the same operator set, merged (a denoiser in front of a classifier), give a model
# with one operator set; and what onnx.checker and ONNX Runtime accept, onnxruntime.quantization accepts too.
# What happens (onnx 1.23.2, onnxruntime 1.32.0): the merged model lists the default domain twice. The full check
# passes and a session runs it, but quantize_static raises "Failed to find proper ai.onnx domain", which says nothing
# of the cause. With one of the two entries deleted, the model is quantised.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - 2>/dev/null <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, compose, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static


def layer(name, source, target):
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), f"{name}_weight")
    node = helper.make_node("MatMul", [source, weight.name], [target], name)
    images, out = (helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 4]) for value in (source, target))
    graph = helper.make_graph([node], name, [images], [out], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


class Images(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": np.ones((2, 4), np.float32)}])

    def get_next(self):
        return next(self.batches, None)


merged = compose.merge_models(layer("denoiser", "x", "h"), layer("classifier", "g", "y"), io_map=[("h", "g")])
listed = [(entry.domain, entry.version) for entry in merged.opset_import]
print("operator sets of the merged model:", listed)
assert listed == [("", 21), ("", 21)]
onnx.checker.check_model(merged, full_check=True)
onnxruntime.InferenceSession(merged.SerializeToString(), providers=["CPUExecutionProvider"])
print("the checker and a session accept it")
try:
    quantize_static(merged, "int8.onnx", Images())
except ValueError as error:
    print("quantize_static:", error)
    assert "proper ai.onnx domain" in str(error)
else:
    raise AssertionError("it is quantised")
del merged.opset_import[1]
quantize_static(merged, "int8.onnx", Images())
print("with one entry deleted, it is quantised")
PY
# Seen: [('', 21), ('', 21)]; accepted by both; "Failed to find proper ai.onnx domain"; then quantised.
