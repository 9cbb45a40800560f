#!/usr/bin/env bash
# torch.onnx.export drops quant_min and quant_max of quantize_per_tensor: a 7-bit activation saturates at 255.
#
# One would guess: a network that torchao quantised with reduce_range=True (its x86 quantiser makes the activations
# 7-bit, 0 to 127, and leaves the weights at 8) gives the same numbers as an ONNX file: values above the calibrated
# range are cut at 127 steps in both.
# What happens (torch 2.13.0, onnxscript 0.7.2, onnxruntime 1.32.0): the exporter writes QuantizeLinear on uint8, which
# cuts at 255 steps, so that an input beyond the range gives up to twice the value. In the range both agree.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet torch==2.13.0 onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$room"
"$room/venv/bin/python" - <<'PY'
import onnxruntime
import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401 - registers the operators

ops = torch.ops.quantized_decomposed


class Quantised(torch.nn.Module):
    def forward(self, x):
        q = ops.quantize_per_tensor.default(x, 0.01, 0, 0, 127, torch.uint8)
        return ops.dequantize_per_tensor.default(q, 0.01, 0, 0, 127, torch.uint8)


x = torch.tensor([[0.5, 1.27, 2.0, 9.0]])
torch.onnx.export(Quantised(), (x,), "net.onnx", dynamo=True, verbose=False)
session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
file = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
print("torch:", Quantised()(x).tolist())
print("file: ", file.tolist())
assert torch.allclose(Quantised()(x)[0], torch.tensor([0.5, 1.27, 1.27, 1.27]))
assert torch.allclose(file[0], torch.tensor([0.5, 1.27, 2.0, 2.55]))
PY
# Seen: torch gives 0.5, 1.27, 1.27, 1.27, the file 0.5, 1.27, 2.0, 2.55.
