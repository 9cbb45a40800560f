#!/usr/bin/env bash
# A column of Hugging Face datasets that is declared as 2 x 3 takes arrays of 3 x 2, and gives them back scrambled.
#
# One would guess: a value whose shape is not the one that `Array2D(shape=(2, 3))` declares is refused when it is
# written, or read back in the shape that it has.
# What happens (datasets 5.2.0): it is stored without a word, and read as 2 x 3, row by row: values that stood in one row
# stand in two. Images stored as (H, W, C) in a column that is declared as (C, H, W) become noise in this way.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet datasets==5.2.0 numpy==2.4.6
HF_HOME="$room/home" "$room/venv/bin/python" - <<'PY'
import datasets
import numpy as np
from datasets import Array2D, Dataset, Features

print("datasets", datasets.__version__)
given = np.arange(6, dtype=np.float32).reshape(3, 2)
features = Features({"x": Array2D(shape=(2, 3), dtype="float32")})
found = np.asarray(Dataset.from_dict({"x": [given.tolist()]}, features=features).with_format("numpy")[0]["x"])
print("given:", given.tolist())
print("found:", found.tolist())
assert found.shape == (2, 3), found.shape
assert found.tolist() == given.reshape(2, 3).tolist() != given.T.tolist(), found
PY
