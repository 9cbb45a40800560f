"""A network with one hidden layer."""

from torch import nn


def tiny(input_shape, num_classes, *, width=32):
    """Return a network with one hidden layer; --model-option width=64 makes it wider."""
    channels, height, columns = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * columns, width), nn.ReLU(),
                         nn.Linear(width, num_classes))
