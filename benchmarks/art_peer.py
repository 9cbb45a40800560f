"""ART as it is installed from PyPI, by its own `certify`: noise and counting on the host, all copies drawn at once."""

import numpy as np
from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
from networks import CLASSES, SIGMA, Network
from reference import N0
from torch import nn

DEFAULT_BATCH = 32
"""Of `certify`."""


def art_certify(network: Network, n: int, batch: int):
    """A call that certifies the network's image once, from N0 + n samples, and returns their number."""
    shape = network.image.shape
    peer = PyTorchRandomizedSmoothing(network.model, nn.CrossEntropyLoss(), shape, CLASSES, device_type="cpu",
                                      sample_size=N0, scale=SIGMA)
    images = np.asarray(network.image)[None]

    def run() -> int:
        peer.certify(images, n=n, batch_size=batch)
        return N0 + n

    return run
