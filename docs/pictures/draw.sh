#!/usr/bin/env bash
# Draws the pictures of docs/ again: bash docs/pictures/draw.sh. Needs smoothcert on the PATH, and a minute.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
for sigma in 0.25 0.5; do
    smoothcert train --data digits --model mlp --sigma $sigma --epochs 30 --batch-size 64 --seed 0 --threads 1 -q -o model-$sigma
    smoothcert certify model-$sigma --n 1000 --seed 0 --threads 1 -q -o "sigma $sigma"
done
smoothcert plot regions "sigma 0.5" --model model-0.5 -o "$here/regions.png"
smoothcert plot panels "sigma 0.25" --sigma 0.12,0.25,0.5,1 -o "$here/panels.png"
smoothcert plot curve "sigma 0.25" "sigma 0.5" -o "$here/curve.svg"
smoothcert plot wall "sigma 0.25" "sigma 0.5" -o "$here/wall.svg"
