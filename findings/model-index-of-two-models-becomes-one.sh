#!/usr/bin/env bash
# A model card with two models in its model-index loses one of them when huggingface_hub reads it and writes it.
#
# One would guess: a `model-index` is a list of models, each with its name and its results, so a card with two of them
# is read and written with both, or is refused.
# What happens (huggingface_hub 2.4.0): all results are kept, under the name of the last model. What was measured of the
# first one is then said of the second, as a second value of the same metric, and nothing warns of it.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet huggingface_hub==2.4.0
"$room/venv/bin/python" - <<'PY'
import huggingface_hub
import yaml
from huggingface_hub import ModelCard


def entry(name, value):
    return {"name": name, "results": [{"task": {"type": "image-classification"},
                                       "dataset": {"type": "digits", "name": "digits"},
                                       "metrics": [{"type": "accuracy", "value": value}]}]}


def models(text):
    index = yaml.safe_load(text.split("---\n")[1])["model-index"]
    return {one["name"]: [metric["value"] for result in one["results"] for metric in result["metrics"]]
            for one in index}


print("huggingface_hub", huggingface_hub.__version__)
card = f"---\n{yaml.safe_dump({'model-index': [entry('weak', 0.5), entry('strong', 0.9)]})}---\n"
again = str(ModelCard(card))
print("written:", models(card))
print("read and written again:", models(again))
assert models(again) == {"strong": [0.5, 0.9]}, again
PY
