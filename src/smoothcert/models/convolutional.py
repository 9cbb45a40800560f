"""Small convolutional networks: cnn for images of any size, and the literature's lenet and cnn3."""

from torch import nn

from smoothcert.checks import check_count
from smoothcert.models.layers import Shape, activation_layer, check_least_size


def cnn(input_shape: Shape, num_classes: int, *, width: int = 32) -> nn.Module:
    """Stages of 3x3 convolution, BatchNorm and ReLU, halved by pooling down to 2..4 pixels: (N, C, H, W) -> (N, K).

    At least three stages, of width, 2 width and then 4 width channels, and as many more as the size needs; a last
    average over 2x2 pixels before the dense layer. It keeps a little of where things are, which on 8x8 images under
    noise is worth more than a global average, and has few weights, which is worth more than keeping all.

    Raises InputError for images below 4x4 or a width below 1.
    """
    check_least_size("cnn", input_shape, 4)
    check_count("width", width)
    channels, height, across = input_shape
    layers: list[nn.Module] = []
    stage = 0
    while stage < 3 or min(height, across) > 4:
        if stage > 0 and min(height, across) > 4:
            layers.append(nn.MaxPool2d(2))
            height, across = height // 2, across // 2
        outputs = width * min(2**stage, 4)
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        channels, stage = outputs, stage + 1
    features = channels * (height // 2) * (across // 2)
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(features, num_classes))


def lenet(input_shape: Shape, num_classes: int) -> nn.Module:
    """LeNet as used for MNIST by MACER (Zhai et al. 2020): (N, C, H, W) -> (N, K).

    conv 20 @ 5x5, pool 2, conv 50 @ 5x5, pool 2, dense 500, dense K, with ReLU. Raises InputError below 16x16.
    """
    check_least_size("lenet", input_shape, 16)
    channels, height, across = input_shape
    features = 50 * _after_pools(height) * _after_pools(across)
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(features, 500), nn.ReLU(), nn.Linear(500, num_classes),
    )


def cnn3(input_shape: Shape, num_classes: int, *, activation: str = "relu") -> nn.Module:
    """The three-layer network of Sinha et al. 2018 and Yang et al. 2021: (N, C, H, W) -> (N, K).

    conv 64 @ 8x8 stride 2 ("same"), conv 128 @ 6x6 stride 2 (valid), conv 128 @ 5x5 (valid), dense K. "Same" pads
    as TensorFlow does: the output has ceil(size / 2) pixels and an odd pixel of padding goes right or below.

    Args:
        activation: "relu", "elu" (the papers' choice for WRM) or "silu".
    Raises InputError below 27x27 pixels or for an unknown activation.
    """
    check_least_size("cnn3", input_shape, 27)
    channels, height, across = input_shape
    padding = (*same_padding(across, 8, 2), *same_padding(height, 8, 2))
    features = 128 * _after_valid(-(-height // 2)) * _after_valid(-(-across // 2))
    return nn.Sequential(
        nn.ZeroPad2d(padding),
        nn.Conv2d(channels, 64, 8, stride=2), activation_layer(activation),
        nn.Conv2d(64, 128, 6, stride=2), activation_layer(activation),
        nn.Conv2d(128, 128, 5), activation_layer(activation),
        nn.Flatten(), nn.Linear(features, num_classes),
    )


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis such that a convolution gives ceil(size / stride), as TensorFlow places them.

    >>> same_padding(28, 8, 2), same_padding(29, 8, 2)
    ((3, 3), (3, 4))
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _after_pools(size: int) -> int:
    """What lenet's two 5x5 convolutions, each with a pooling, leave of one axis."""
    return ((size - 4) // 2 - 4) // 2


def _after_valid(size: int) -> int:
    """What cnn3's two valid convolutions leave of one axis."""
    return (size - 6) // 2 + 1 - 4
