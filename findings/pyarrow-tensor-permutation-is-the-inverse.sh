#!/usr/bin/env bash
# pyarrow writes the inverse of the permutation that Arrow's fixed shape tensors define, and cannot read it back.
#
# One would guess: FixedShapeTensorArray.from_numpy_ndarray(array).to_numpy_ndarray() gives the array again, whatever its
# strides, and the permutation that is stored is the one of the specification: the logical axis i is the physical axis
# permutation[i].
# What happens (pyarrow 26.0.1): for images transposed from (N, H, W, C) to (N, C, H, W) it stores the inverse of that
# permutation. Where that is its own inverse (a plain transpose of two axes)
# nobody notices; for three axes a reader that follows the specification gets images of another shape, and pyarrow's own
# reader raises ArrowInvalid about strides.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet pyarrow==26.0.1 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import numpy as np
import pyarrow as pa

print("pyarrow", pa.__version__)
height, width, channels = 5, 7, 3
images = np.arange(2 * height * width * channels, dtype=np.uint8).reshape(2, height, width, channels)
transposed = images.transpose(0, 3, 1, 2)
array = pa.FixedShapeTensorArray.from_numpy_ndarray(transposed)
shape, permutation = list(array.type.shape), list(array.type.permutation)
print(f"logical shape {transposed.shape[1:]}, stored shape {shape}, permutation {permutation}")
by_the_specification = [shape[axis] for axis in permutation]
print(f"shape that the specification gives: {by_the_specification}")
try:
    back = array.to_numpy_ndarray()
    outcome = f"read back as {back.shape}, equal: {back.shape == transposed.shape and bool((back == transposed).all())}"
except pa.ArrowInvalid as error:
    outcome = f"ArrowInvalid: {error}"
print(outcome)
assert by_the_specification != list(transposed.shape[1:]), by_the_specification
assert outcome.startswith("ArrowInvalid") or not outcome.endswith("True"), outcome
square = pa.FixedShapeTensorArray.from_numpy_ndarray(images[..., 0].transpose(0, 2, 1))
assert (square.to_numpy_ndarray() == images[..., 0].transpose(0, 2, 1)).all()
print("a transpose of two axes comes back equal")
PY
# Seen: [7, 3, 5] where (3, 5, 7) was meant; ArrowInvalid: strides must not involve buffer over run.
