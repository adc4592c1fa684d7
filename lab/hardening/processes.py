"""The processes that train together, as `torchrun` starts them: on several GPUs, machines, or cores."""

from __future__ import annotations

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
"""That the others wait for the first one, which alone measures."""


@dataclass(frozen=True)
class Processes:
    """This one is number `rank` of `count`."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this one reads, writes and prints for all."""
        return self.rank == 0

    def own(self, shards: int) -> range:
        """The shards of a batch that this process takes; `count` divides their number."""
        each = shards // self.count
        return range(self.rank * each, (self.rank + 1) * each)

    def check(self, shards: int) -> None:
        """Raise ConfigError unless the processes can share out the shards of a batch evenly."""
        if shards % self.count:
            raise ConfigError(f"shards: expected a multiple of {self.count}, the number of processes, got {shards}")

    def together(self, network: nn.Module) -> nn.Module:
        """`network` with gradients that are the mean over all processes; itself where there is one."""
        # It makes the buffers of all those of the first, which changes nothing: whoever trains keeps them the same.
        return network if self.count == 1 else DistributedDataParallel(network)

    def apart(self, network: nn.Module) -> AbstractContextManager[None]:
        """Within it, gradients of what `together` gave only add up in this process."""
        if isinstance(network, DistributedDataParallel):
            alone: AbstractContextManager[None] = network.no_sync()
            return alone
        return nullcontext()

    def add_up(self, value: Tensor) -> None:
        """Replace `value` in place by its sum over all processes."""
        if self.count > 1:
            dist.all_reduce(value)

    def of_the_first(self, found: Any) -> Any:
        """What the first process found, in all of them."""
        if self.count == 1:
            return found
        box = [found]
        dist.broadcast_object_list(box, src=0)
        return box[0]


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join those that `torchrun` started beside this process, if any: by NCCL on GPUs, by gloo on CPUs."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """`device`, or of several GPUs the one that belongs to this process of its machine."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
