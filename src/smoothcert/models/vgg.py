"""VGG-16 for small images (Simonyan & Zisserman 2015), with BatchNorm, as the literature trains it on CIFAR-10."""

from torch import nn

from smoothcert.models.layers import Shape, activation_layer, check_least_size

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(input_shape: Shape, num_classes: int, *, activation: str = "relu") -> nn.Module:
    """Five stages of 3x3 convolutions, each halved by pooling (rounded up), and a dense layer: (N, C, H, W) -> (N, K).

    14.7 million parameters at 32x32 with 10 classes. The dense layer sees all positions that are left: 1x1 at 32x32,
    2x2 at 64x64. Convolutions start from He's normal distribution (fan-out).

    Differs from the paper: BatchNorm after every convolution, and one dense layer in place of three.

    Args:
        activation: "relu", "elu" (the papers' choice for WRM) or "silu".
    Raises InputError below 8x8 pixels or for an unknown activation.
    """
    check_least_size("vgg16", input_shape, 8)
    channels, height, across = input_shape
    layers: list[nn.Module] = []
    for widths in _STAGES:
        for width in widths:
            convolution = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(width), activation_layer(activation)]
            channels = width
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    positions = -(-height // 32) * -(-across // 32)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * positions, num_classes))
