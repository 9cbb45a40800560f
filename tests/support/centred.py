"""A network that is undecided: its votes are spread over many classes, and some of them are close calls."""

import torch
from torch import nn

from smoothcert.models import build_model


def centred(name, shape, images, classes=10, sigma=0.5):
    """Return a network of random weights in eval mode whose logits are centred on noisy copies of images (n, C, H, W).

    Its BatchNorm statistics are those of the copies, and its logits are shrunk to the size of what tells classes apart.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(name, shape, classes)
        rows = torch.from_numpy(images).repeat(100, 1, 1, 1)
        rows = rows + sigma * torch.randn(rows.shape)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # plain averages
    with torch.no_grad():
        model.train()(rows)
        logits = model.eval()(rows)
        last = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
        last.bias -= logits.mean(dim=0)
    return model
