"""Residual networks with the layers and the names of other people's code, written anew, and files as they save them."""

from pathlib import Path

import torch
from torch import Tensor, nn

MEANS, SDS = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FLAGS = ("--mean", "0.4914,0.4822,0.4465", "--std", "0.2023,0.1994,0.2010")


class Block(nn.Module):
    """A basic block, or a bottleneck, whose shortcut has the name that its author gave it."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool, shortcut: str):
        super().__init__()
        outputs = 4 * width if bottleneck else width
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (inputs, *[width] * (len(kernels) - 1), outputs)
        self.count, self.shortcut_name = len(kernels), shortcut
        for k, kernel in enumerate(kernels):
            step = stride if k == (1 if bottleneck else 0) else 1
            self.add_module(f"conv{k + 1}", nn.Conv2d(widths[k], widths[k + 1], kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{k + 1}", nn.BatchNorm2d(widths[k + 1]))
        changes = stride != 1 or inputs != outputs
        self.add_module(shortcut, nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                                nn.BatchNorm2d(outputs)) if changes else None)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(1, self.count + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
            y = y.relu() if k < self.count else y
        shortcut = getattr(self, self.shortcut_name)
        return (y + (x if shortcut is None else shortcut(x))).relu()


class ResNet(nn.Module):
    """conv1, bn1, layer1 to layerN, and a dense layer."""

    def __init__(self, blocks, width, num_classes=10, *, bottleneck=False, imagenet=False, shortcut="downsample",
                 dense="fc"):
        super().__init__()
        inputs = width
        self.conv1 = nn.Conv2d(3, width, *((7, 2, 3) if imagenet else (3, 1, 1)), bias=False)
        self.bn1, self.imagenet, self.stages, self.dense = nn.BatchNorm2d(width), imagenet, len(blocks), dense
        for k, count in enumerate(blocks):
            layer = []
            for place in range(count):
                layer.append(Block(inputs, width << k, 2 if k and place == 0 else 1, bottleneck, shortcut))
                inputs = (width << k) * (4 if bottleneck else 1)
            self.add_module(f"layer{k + 1}", nn.Sequential(*layer))
        self.add_module(dense, nn.Linear(inputs, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1) if self.imagenet else x
        for k in range(self.stages):
            x = getattr(self, f"layer{k + 1}")(x)
        return getattr(self, self.dense)(x.mean((2, 3)))


class NormalizeLayer(nn.Module):
    """(x - means) / sds, kept as plain attributes, as in 2019, or as buffers."""

    def __init__(self, buffers: bool = False):
        super().__init__()
        for name, values in (("means", MEANS), ("sds", SDS)):
            if buffers:
                self.register_buffer(name, torch.tensor(values))
            else:
                setattr(self, name, torch.tensor(values))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.means.view(1, 3, 1, 1)) / self.sds.view(1, 3, 1, 1)


def with_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode, with statistics that no new network has."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return network.eval()


def resnet20(num_classes: int = 10) -> ResNet:
    return ResNet((3, 3, 3), 16, num_classes)


def save_published(path: Path, network: nn.Module, arch: str, prefix: str = "") -> Path:
    """Save a network as the 2019 code does: with its epoch, its name and its optimiser."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    sum(parameter.sum() for parameter in network.parameters()).backward()
    state = {prefix + name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer.step()
    torch.save({"epoch": 90, "arch": arch, "state_dict": state, "optimizer": optimizer.state_dict()}, path)
    network.load_state_dict({name.removeprefix(prefix): tensor for name, tensor in state.items()})
    return path
