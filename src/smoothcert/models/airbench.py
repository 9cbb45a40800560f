"""A small, fast network for 32x32 images, after those of the CIFAR-10 speed runs."""

from torch import nn

from smoothcert.checks import check_count
from smoothcert.models.layers import Shape, activation_layer, check_least_size


def airbench(input_shape: Shape, num_classes: int, *, width: int = 64, activation: str = "relu") -> nn.Module:
    """A 2x2 convolution and three blocks of two 3x3 convolutions, each block halved by pooling: (N, C, H, W) -> (N, K).

    Width, 4 width and 4 width channels; the maximum over the last 3x3 positions and a dense layer. At the default
    width 2.0 million parameters and 0.24 GFLOP a 32x32 image, after airbench94 (Jordan 2024), which goes back to the
    ResNet-9 of the DAWNBench entries (Page 2018).

    Differs from airbench94: the first layer is trained as the others are, and not set to whiten the data, which noise
    does much of; BatchNorm comes before the pooling and has a scale, so that it folds into the convolution before it;
    ReLU in place of GELU, which engines fuse and integers keep; the dense layer has a bias and no factor of 1/9.

    Args:
        width: channels of the first block.
        activation: "relu", "elu" or "silu".
    Raises InputError below 9x9 pixels, for a width below 1 or an unknown activation.
    """
    check_least_size("airbench", input_shape, 9)
    check_count("width", width)
    channels = 8 * input_shape[0]
    layers: list[nn.Module] = [nn.Conv2d(input_shape[0], channels, 2), activation_layer(activation)]
    for outputs in (width, 4 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.MaxPool2d(2),
            activation_layer(activation),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
            activation_layer(activation),
        ]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
