"""The processes of a distributed training, as `torchrun` starts them: on several GPUs, machines, or cores."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from schemas.errors import ConfigError

PATIENCE: Final = timedelta(hours=12)
"""Timeout of the other processes while the first one measures alone."""


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """True for the process that reads, writes and prints for all."""
        return self.rank == 0

    def own(self, shards: int) -> range:
        """Return the shards of a batch for this process. `count` divides their number."""
        each = shards // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def check(self, shards: int) -> None:
        """Raise ConfigError unless the shards of a batch can be divided evenly among the processes."""
        if shards % self.count:
            raise ConfigError(f"shards: expected a multiple of {self.count}, the number of processes, got {shards}")

    def together(self, network: nn.Module) -> nn.Module:
        """Return `network` with gradients averaged over all processes, or `network` itself if there is only one."""
        # DDP copies the first process's buffers to all. Nothing changes, because the training keeps them equal.
        return network if self.count == 1 else DistributedDataParallel(network)

    def apart(self, network: nn.Module) -> AbstractContextManager[None]:
        """Within this context, gradients of a network from `together` accumulate in this process alone."""
        if isinstance(network, DistributedDataParallel):
            alone: AbstractContextManager[None] = network.no_sync()
            return alone
        return nullcontext()

    def add_up(self, value: Tensor) -> None:
        """Replace `value` in place by its sum over all processes."""
        if self.count > 1:
            dist.all_reduce(value)

    def of_the_first(self, found: Any) -> Any:
        """Return the first process's `found` in all processes."""
        if self.count == 1:
            return found
        box = [found]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that `torchrun` has started, if any: by NCCL on GPUs, by gloo on CPUs."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Optimisers import it. An import after this point keeps a reference to the group, whose threads then never end.
    importlib.import_module("torch._dynamo")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()
        # Reference cycles still hold the group. If its threads run when the interpreter ends, the process may abort.
        gc.collect()


def own_device(device: torch.device) -> torch.device:
    """Return `device`, or among several GPUs of the machine the one of this process."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
