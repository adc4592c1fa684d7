"""The common parts of both restorers' trainings: AdamW, averaged weights, and a checkpoint to resume from."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor, nn

from lab.training.recipe import average_into
from schemas.runtime.atomic_file import replacing

Network = TypeVar("Network", bound=nn.Module)

AVERAGE_DECAY: Final = 0.998


class AveragedTraining(Generic[Network]):
    """A training of `network` in place. `average` is the network that ships."""

    def __init__(self, network: Network, rate: float, checkpoint: Path, chance: torch.Generator) -> None:
        """Resume from `checkpoint` if there is one, with the state of `chance` after its step."""
        self.average = copy.deepcopy(network)
        self._network, self._checkpoint, self._chance = network, checkpoint, chance
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
        self.first = 0
        """The first step to run."""
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            for name, part in self._parts.items():
                part.load_state_dict(saved[name])
            self.first = saved["step"] + 1
            chance.set_state(saved["chance"])

    @property
    def _parts(self) -> dict[str, Any]:
        return {"network": self._network, "average": self.average, "optimiser": self._optimiser}

    def descend(self, loss: Tensor, step: int, rate: float) -> None:
        """Take one step down the gradient of `loss`, with the norm clipped at 1."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
        self._optimiser.step()
        average_into(self.average, self._network, min(AVERAGE_DECAY, (step + 1) / (step + 10)))

    def save(self, step: int) -> None:
        """Save the state after `step`."""
        with replacing(self._checkpoint) as fresh:
            parts = {name: part.state_dict() for name, part in self._parts.items()}
            torch.save(parts | {"step": step, "chance": self._chance.get_state()}, fresh)
