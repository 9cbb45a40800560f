"""A convolutional network for series: conv1d."""

from torch import nn

from smoothcert.checks import check_count
from smoothcert.errors import InputError
from smoothcert.models.layers import Shape


def conv1d(input_shape: Shape, num_classes: int, *, width: int = 32, kernel: int = 7) -> nn.Module:
    """Stages of convolution over time, BatchNorm and ReLU, halved by pooling down to 4..7 steps: (N, C, T) -> (N, K).

    At least three stages, of width, 2 width and then 4 width channels, and as many more as the length needs. The last
    steps are averaged in pairs before the dense layer, which keeps a little of when things happen.

    Args:
        width: channels of the first stage.
        kernel: steps that a convolution sees, an odd number.
    Raises InputError for inputs that are no series of at least 4 steps, a width below 1 or an even kernel.
    """
    if len(input_shape) != 2 or input_shape[1] < 4:
        raise InputError(f"conv1d takes series (C, T) of at least 4 steps, got inputs of shape {input_shape}: use mlp "
                         f"or linear, which take any shape")
    if check_count("kernel", kernel) % 2 == 0:
        raise InputError(f"kernel must be an odd number of steps, got {kernel}")
    check_count("width", width)
    channels, steps = input_shape
    layers: list[nn.Module] = []
    stage = 0
    while stage < 3 or steps > 7:
        if stage > 0 and steps > 7:
            layers.append(nn.MaxPool1d(2))
            steps //= 2
        outputs = width * min(2**stage, 4)
        layers += [nn.Conv1d(channels, outputs, kernel, padding=kernel // 2, bias=False), nn.BatchNorm1d(outputs),
                   nn.ReLU()]
        channels, stage = outputs, stage + 1
    return nn.Sequential(*layers, nn.AvgPool1d(2), nn.Flatten(), nn.Linear(channels * (steps // 2), num_classes))
