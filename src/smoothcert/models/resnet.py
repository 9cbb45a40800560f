"""Residual networks (He et al. 2016) of the certified-robustness literature: for small images, and ResNet-50."""

from torch import Tensor, nn
from torch.nn import functional

from smoothcert.models.layers import Shape, activation_layer, check_least_size


class BasicBlock(nn.Module):
    """a(shortcut(x) + BN(conv(a(BN(conv(x)))))): (N, inputs, H, W) -> (N, outputs, H/stride, W/stride).

    a is the activation, by name.
    The shortcut is the identity, or a 1x1 convolution with BatchNorm where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, activation: str = "relu"):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False),
                                          nn.BatchNorm2d(outputs))
        self.activation = activation_layer(activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.activation(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """relu(shortcut(x) + BN(conv1x1(relu(BN(conv3x3(relu(BN(conv1x1(x))))))))): (N, inputs, H, W) -> (N, outputs,
    H/stride, W/stride), outputs = 4 width.

    The stride is that of the 3x3 convolution, and the shortcut as in `BasicBlock`.
    """

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False),
                                          nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        return functional.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A ResNet of depth 6n + 2: three stages of n basic blocks, 16, 32 and 64 wide: (N, C, H, W) -> (N, K).

    The mean over all positions comes before the dense layer. Convolutions start from He's normal distribution
    (fan-out). Raises InputError below 8x8 pixels.

    Differs from He et al.: a projection where the shape changes (their option B), as in Cohen et al. 2019.
    """

    def __init__(self, input_shape: Shape, num_classes: int, blocks: int):
        super().__init__()
        check_least_size("a CIFAR ResNet", input_shape, 8)
        self.conv = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.stage1 = _stage(16, 16, blocks, stride=1)
        self.stage2 = _stage(16, 32, blocks, stride=2)
        self.stage3 = _stage(32, 64, blocks, stride=2)
        self.dense = nn.Linear(64, num_classes)
        _he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(images)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.dense(x.mean(dim=(2, 3)))


class WideStemResNet(nn.Module):
    """ResNet-18 for small images: four stages of two basic blocks, 64 to 512 wide: (N, C, H, W) -> (N, K).

    The mean over all positions comes before the dense layer. Convolutions start from He's normal distribution
    (fan-out).

    Differs from He et al.: the first layer is a 3x3 convolution of stride 1 with no pooling after it, as is usual for
    32x32 and 64x64 images.
    """

    def __init__(self, input_shape: Shape, num_classes: int, activation: str):
        super().__init__()
        check_least_size("resnet18", input_shape, 8)
        self.conv = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.activation = activation_layer(activation)
        self.stage1 = _stage(64, 64, 2, stride=1, activation=activation)
        self.stage2 = _stage(64, 128, 2, stride=2, activation=activation)
        self.stage3 = _stage(128, 256, 2, stride=2, activation=activation)
        self.stage4 = _stage(256, 512, 2, stride=2, activation=activation)
        self.dense = nn.Linear(512, num_classes)
        _he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.activation(self.norm(self.conv(images)))
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.dense(x.mean(dim=(2, 3)))


class ImageNetResNet(nn.Module):
    """ResNet-50: a 7x7 convolution and a 3x3 maximum, each of stride 2, then four stages of 3, 4, 6 and 3 bottlenecks,
    256 to 2,048 wide: (N, C, H, W) -> (N, K).

    The mean over all positions comes before the dense layer. Convolutions start from He's normal distribution
    (fan-out).

    Differs from He et al.: the stride of a stage is that of its first 3x3 convolution, as in most ResNet-50s since.
    """

    def __init__(self, input_shape: Shape, num_classes: int):
        super().__init__()
        check_least_size("resnet50", input_shape, 8)
        self.conv = nn.Conv2d(input_shape[0], 64, 7, stride=2, padding=3, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage1 = _bottlenecks(64, 64, 3, stride=1)
        self.stage2 = _bottlenecks(256, 128, 4, stride=2)
        self.stage3 = _bottlenecks(512, 256, 6, stride=2)
        self.stage4 = _bottlenecks(1024, 512, 3, stride=2)
        self.dense = nn.Linear(2048, num_classes)
        _he_normal(self)

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.norm(self.conv(images))))
        x = self.stage4(self.stage3(self.stage2(self.stage1(x))))
        return self.dense(x.mean(dim=(2, 3)))


def resnet20(input_shape: Shape, num_classes: int) -> nn.Module:
    """CifarResNet of depth 20 (3 blocks a stage), 0.27 million parameters."""
    return CifarResNet(input_shape, num_classes, blocks=3)


def resnet110(input_shape: Shape, num_classes: int) -> nn.Module:
    """CifarResNet of depth 110 (18 blocks a stage), 1.73 million parameters: Cohen et al.'s CIFAR-10 network."""
    return CifarResNet(input_shape, num_classes, blocks=18)


def resnet18(input_shape: Shape, num_classes: int, *, activation: str = "relu") -> nn.Module:
    """ResNet-18 with a 3x3 first layer, 11.2 million parameters: Yang et al.'s CIFAR-10 and Tiny ImageNet network.

    Args:
        activation: "relu", "elu" (the papers' choice for WRM) or "silu".
    Raises InputError below 8x8 pixels or for an unknown activation.
    """
    return WideStemResNet(input_shape, num_classes, activation)


def resnet50(input_shape: Shape, num_classes: int) -> nn.Module:
    """ImageNetResNet, 25.6 million parameters at 1,000 classes, for images of about 224x224: the ImageNet network of
    Cohen et al., Salman et al. and Feng et al. Raises InputError below 8x8 pixels.
    """
    return ImageNetResNet(input_shape, num_classes)


def _bottlenecks(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Bottleneck(4 * width, width, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(inputs, width, stride), *rest)


def _stage(inputs: int, outputs: int, blocks: int, stride: int, activation: str = "relu") -> nn.Sequential:
    rest = [BasicBlock(outputs, outputs, 1, activation) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride, activation), *rest)


def _he_normal(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
