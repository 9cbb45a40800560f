#!/usr/bin/env bash
# A DistributedDataParallel network that is freed after destroy_process_group can wait for ever (gloo).
#
# One would guess: once destroy_process_group has returned, the group is gone, and what is left may be freed at any time.
# What happens (torch 2.13.0): the network's reducer holds the group too. If it is the last to do so, the group ends with
# the network, while Python's lock is held, and waits there for its threads. A thread that frees the tensors of the last
# all-reduce waits for that lock. Whoever frees the network before the group never meets it.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cat > "$room/pair.py" <<'PY'
import os
import sys

import torch
from torch import distributed, nn

ROUNDS, FIRST = int(sys.argv[3]), sys.argv[4] == "network-first"
torch.set_num_threads(1)


def train() -> nn.Module:
    network = nn.parallel.DistributedDataParallel(nn.Linear(50, 3))
    for _ in range(3):
        network(torch.randn(8, 50)).sum().backward()
    return network


def live(number: int) -> None:
    distributed.init_process_group("gloo", rank=int(sys.argv[2]), world_size=2,
                                   init_method=f"file://{sys.argv[1]}/{sys.argv[4]}-{number}")
    network = train()
    if FIRST:
        del network
    distributed.destroy_process_group()


for number in range(ROUNDS):
    live(number)
os._exit(0)
PY
for order in network-first group-first; do
    for rank in 0 1; do
        timeout 120 "$room/venv/bin/python" "$room/pair.py" "$room" $rank 100 $order &
        ranks[rank]=$!
    done
    ended=0
    for rank in 0 1; do wait "${ranks[rank]}" || ended=$?; done
    echo "$order: $([ $ended = 124 ] && echo 'waits for ever' || echo "100 rounds, exit code $ended")"
    expected=$([ $order = network-first ] && echo 0 || echo 124)
    [ $ended = "$expected" ]
done
# Seen: network-first: 100 rounds, exit code 0; group-first: waits for ever, mostly within ten rounds.
