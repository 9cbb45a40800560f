"""Networks in a file of their own, as users have them: what the runs' tests certify, attack and bound."""

from pathlib import Path

import numpy as np

from smoothcert.data import load_data

_NETS = """
from pathlib import Path

import numpy as np
import torch

class Means(torch.nn.Module):
    def __init__(self):
        super().__init__()
        means = torch.from_numpy(np.load(Path(__file__).with_name("means.npy")))
        self.last = torch.nn.Linear(64, 10)
        self.last.weight.data, self.last.bias.data = SCALE * means, -SCALE / 2 * means.square().sum(1)

    def forward(self, x):
        return self.last(x.flatten(1))

class Walk(Means):
    random = True
    def forward(self, x, normals):
        return super().forward(x + .1 * normals(0, x))
"""


def write_nets(folder: Path, scale: int, more: str) -> None:
    """folder/nets.py with `Means`, the digit whose mean image is nearest, its random kin `Walk`, and `more` classes."""
    (folder / "nets.py").write_text(_NETS.replace("SCALE", str(scale)) + more)
    train = load_data("digits", "train")
    images = train.batch(np.arange(len(train))).reshape(len(train), -1)
    np.save(folder / "means.npy", np.stack([images[train.labels == k].mean(axis=0) for k in range(10)]))
