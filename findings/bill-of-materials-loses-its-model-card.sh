#!/usr/bin/env bash
# cyclonedx-python-lib drops the model card of a valid CycloneDX document without a word.
#
# One would guess: a document of schema 1.6 that the library's own strict validator accepts is read and written by the
# library with all that it says, or the library refuses what it has no class for.
# What happens (cyclonedx-python-lib 11.12.0): the validator, which knows the schema, accepts a model card with its
# performance metrics; `Bom.from_json` reads the document without an error or a warning, and what it writes has the
# component of type machine-learning-model, but no card. A component's `data` goes the same way. So a tool that only
# adds a line to an ML-BOM by way of the library removes every figure from it.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet 'cyclonedx-python-lib[json-validation]==11.12.0'
"$room/venv/bin/python" -W error - <<'PY'
import json
from importlib.metadata import version

from cyclonedx.model.bom import Bom
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

print("cyclonedx-python-lib", version("cyclonedx-python-lib"))
metric = {"type": "accuracy", "value": "0.9", "confidenceInterval": {"lowerBound": "0.8", "upperBound": "1"}}
document = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [
    {"type": "machine-learning-model", "name": "net", "bom-ref": "net",
     "modelCard": {"quantitativeAnalysis": {"performanceMetrics": [metric]}}},
    {"type": "data", "name": "digits", "bom-ref": "digits", "data": [{"type": "dataset", "name": "digits"}]}]}
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
print("the strict validator says:", problem or "valid")
again = json.loads(JsonV1Dot6(Bom.from_json(document)).output_as_string())
kept = {one["name"]: sorted({"modelCard", "data"} & one.keys()) for one in again["components"]}
print("kept of modelCard and data after reading and writing:", kept)
assert problem is None and kept == {"net": [], "digits": []}, (problem, kept)
PY
