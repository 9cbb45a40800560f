#!/usr/bin/env bash
# Importing MNN's converter installs another package into whatever environment `pip` on the PATH belongs to.
#
# One would guess: `mnnconvert`, the command that the wheel MNN brings, converts a file.
# What happens (MNN 3.6.1): importing MNN.tools.mnnconvert, as the command does, imports a logger, which runs
# `pip install -U aliyun-log-python-sdk` where that package is absent, and then reports each conversion to a server. The
# pip of the PATH need not be that of the environment MNN is in. The compiled converter, _tools.mnnconvert, does neither.
# Here a stand-in for pip notes what it is called with and installs nothing, so nothing is reported either.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet mnn==3.6.1 numpy==2.4.6
mkdir "$room/bin"
printf '#!/bin/sh\necho "pip $*" >> "%s/called"\n' "$room" > "$room/bin/pip"
chmod +x "$room/bin/pip"
touch "$room/called"
PATH="$room/bin:$PATH" "$room/venv/bin/python" -c 'import _tools'
echo "after importing _tools: $(cat "$room/called")"
PATH="$room/bin:$PATH" "$room/venv/bin/python" -c 'import MNN.tools.mnnconvert'
echo "after importing MNN.tools.mnnconvert: $(cat "$room/called")"
grep -q "pip install -U aliyun-log-python-sdk" "$room/called"
# Seen: after importing _tools: nothing; after importing MNN.tools.mnnconvert: pip install -U aliyun-log-python-sdk
