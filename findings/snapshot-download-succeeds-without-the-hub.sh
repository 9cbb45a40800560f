#!/usr/bin/env bash
# huggingface_hub's snapshot_download into a folder returns as if it had worked when the hub cannot be reached.
#
# One would guess: a download of a whole repository that could reach no server raises an error, at the latest because
# none of its files is there.
# What happens (huggingface_hub 2.4.0): into a new or empty local_dir it raises, as one expects. Into a local_dir that
# holds any file at all, of whatever origin, it returns the path of that folder, with a warning in the log: what lies
# there is taken for an earlier download of the repository. A program that then loads the folder uses other weights than
# it asked for. snapshot_download gives no sign by which to tell; model_info, asked before, raises.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet huggingface_hub==2.4.0
cd "$room"
HF_HOME="$room/home" HF_ENDPOINT=http://127.0.0.1:9 "$room/venv/bin/python" - <<'PY'
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi, snapshot_download

print("huggingface_hub", huggingface_hub.__version__)
folders = {"empty": Path("empty"), "with a file": Path("with-a-file")}
for folder in folders.values():
    folder.mkdir()
(folders["with a file"] / "notes.txt").write_text("nothing of that repository")
outcome = {}
for name, folder in folders.items():
    try:
        outcome[name] = f"returns {Path(snapshot_download('someone/a-model', local_dir=folder)).name}"
    except Exception as error:
        outcome[name] = f"raises {type(error).__name__}"
    print(f"snapshot_download into a folder {name}: {outcome[name]}")
try:
    HfApi().model_info("someone/a-model")
    asked = "returns"
except Exception as error:
    asked = f"raises {type(error).__name__}"
print(f"model_info: {asked}")
assert outcome["empty"].startswith("raises") and outcome["with a file"].startswith("returns"), outcome
assert asked.startswith("raises"), asked
PY
