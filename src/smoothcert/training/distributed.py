"""The processes of one training run, as torchrun's environment describes them; one process where there is none."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from smoothcert.errors import LostProcessError
from smoothcert.training.batchnorm import across_processes

_PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up; one that has ended is noticed at once."""


@dataclass(frozen=True)
class Share:
    """The rows that this process holds of a batch, or of the part of one that gets an optimiser step.

    Attributes:
        rows: their places.
        whole: rows of all processes together.
        weight: of the mean loss of `rows`, so that the mean over processes is the mean loss of the whole.
        counts: for how many of all rows they count in a mean over processes.
    """

    rows: Sequence[int]
    whole: int
    weight: float
    counts: float


@dataclass(frozen=True)
class Ranks:
    """This process (rank) among `world` of them."""

    rank: int
    world: int

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def share(self, rows: int) -> Share:
        """This process's share of so many rows; of fewer than there are processes, each holds all."""
        if rows < self.world:
            return Share(range(rows), rows, 1.0, rows / self.world)
        own = self.own(rows)
        return Share(own, rows, self.world * len(own) / rows, len(own))

    def own(self, rows: int) -> range:
        """The places of every row that falls to this process alone, of so many."""
        return range(self.rank, rows, self.world)

    def synced(self, network: nn.Module, device: torch.device) -> nn.Module:
        """A network that will run on a device, with the statistics of BatchNorm taken over all processes."""
        return across_processes(network, device) if self.world > 1 else network

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over processes."""
        return nn.parallel.DistributedDataParallel(network) if self.world > 1 else network

    def sum(self, values: Tensor) -> Tensor:
        """Sums over all processes, in place."""
        if self.world > 1:
            torch.distributed.all_reduce(values)
        return values

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the main one's values, in place."""
        for tensor in tensors if self.world > 1 else ():
            values = tensor.contiguous()
            torch.distributed.broadcast(values, 0)
            tensor.copy_(values)

    def agree(self, value: int, device: torch.device) -> bool:
        """Whether a value is the same in all processes."""
        mains = torch.tensor([value], device=device)
        self.spread([mains])
        return int(self.sum((mains != value).long())) == 0

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            torch.distributed.barrier()


def world_size() -> int:
    """Return the number of processes that torchrun, or another starter, says this run has; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process, of those that torchrun started, is the one that writes files and prints."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that the environment names (RANK, WORLD_SIZE, ...), and leave it at the end.

    Raises LostProcessError where another process has ended, or has not answered for ten minutes.
    """
    if world_size() == 1:
        yield Ranks(0, 1)
        return
    cuda = device.type == "cuda"
    store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    torch.distributed.init_process_group("nccl" if cuda else "gloo", store=_of_this_start(store), rank=rank,
                                         world_size=world, timeout=_PATIENCE, device_id=device if cuda else None)
    try:
        yield Ranks(rank, world)
    except BaseException as error:
        if isinstance(error, torch.distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
            raise LostProcessError(f"another process of this run has ended, and its own message, if any, says why "
                                   f"({str(error).split('. ')[0]}); the same command goes on from the last finished "
                                   f"epoch") from error
        torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()


def _of_this_start(store: Store) -> Store:
    """torchrun keeps one store when it starts processes again (`--max-restarts`), with the addresses of the dead in it,
    which the new ones would wait for. The count of restarts tells them apart; it is common on a single machine."""
    if os.environ.get("GROUP_WORLD_SIZE") != "1":
        return store
    return PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
