"""The processes of one training run, as torchrun's environment describes them; one process where there is none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from smoothcert.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """This process (rank) among `world` of them."""

    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, indices: list[int]) -> list[int]:
        """This process's equal share of a batch."""
        return indices[self.rank :: self.world]

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over processes."""
        return nn.parallel.DistributedDataParallel(network) if self.world > 1 else network

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over all processes."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            torch.distributed.barrier()


def is_main_process() -> bool:
    """Whether this process, of those that torchrun started, is the one that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that the environment names (RANK, WORLD_SIZE, ...), and leave it at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Ranks(0, 1)
        return
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(torch.distributed.get_rank(), world)
    finally:
        torch.distributed.destroy_process_group()


def pick_device(name: str) -> torch.device:
    """`auto` is this process's GPU where there is one, else the CPU."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, and torch finds no GPU here: use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
