"""Triggers at varying places, cut out of the quarantine by a mask network: x·(1 − a(y)) + a(y)·y.

The generator's colour is the quarantined frame itself. So the original trigger is pasted on a clean frame, at any place
and in any number. The mask is trained on the backdoored model's answers: frames with the pasted cut get the target
class, quarantined frames without it do not, and the mask is as small as possible. If windows with the trigger are known
(`lab.repair.occlusion`), the mask is trained on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.chance import seeded
from lab.repair.checkpoints import Checkpoint
from lab.repair.generators import with_coordinates
from lab.repair.occlusion import Occlusion

POINT_STEPS: Final = 150
BATCH: Final = 32
RATE: Final = 5e-3


class MaskNetwork(nn.Module):
    """A network from frames (B, C, H, W) to the trigger's place (B, 1, H, W) in [0, 1].

    It has five convolutions with a receptive field of 23×23 pixels.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels + 2, width, 3, padding=1), nn.LeakyReLU(0.1)]
        for dilation in (1, 2, 4):
            layers += [nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the mask (B, 1, H, W) of frames (B, C, H, W)."""
        mask: Tensor = self.layers(with_coordinates(frames)).sigmoid()
        return mask


@seeded(0)
def point(seen: Occlusion, others: Tensor) -> MaskNetwork:
    """Return a network trained to return the found windows, and nothing on clean frames `others` (K, C, H, W)."""
    network = MaskNetwork(others.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(0)
    frames, windows = seen.frames[seen.found], seen.window[seen.found]
    for _ in range(POINT_STEPS):
        chosen = torch.randint(len(frames), (BATCH,), generator=generator)
        clean = others[torch.randint(len(others), (BATCH,), generator=generator)]
        wanted = torch.cat((windows[chosen], torch.zeros_like(windows[chosen])))
        loss = F.binary_cross_entropy(network(torch.cat((frames[chosen], clean))), wanted)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
    return network.requires_grad_(False)


@seeded(0)
def train_mask(
    quarantined: Tensor,
    clean: Tensor,
    others: Tensor,
    target: int,
    logits: Callable[[Tensor], Tensor],
    *,
    steps: int = 140,
    batch: int = BATCH,
    rate: float = RATE,
    checkpoint: Checkpoint,
    advance: Callable[[int], object],
) -> MaskNetwork:
    """Train the mask on quarantined frames (M, C, H, W) of class `target` and on clean frames of other classes.

    `clean` (N, C, H, W) are clean frames of other classes than the target. `others` (K, C, H, W) are any clean frames;
    their mask must be empty. `logits` are the backdoored model's. The penalty on the mask's mass grows while both aims
    hold on nine of ten frames, and falls otherwise (like that of Neural Cleanse, Wang et al. 2019).
    """
    network = MaskNetwork(quarantined.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    state = checkpoint.load() or {}
    if state:
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        generator.set_state(state["generator"])
    pressure, held, first = state.get("pressure", 1.0), state.get("held", 0.5), state.get("step", 0)
    advance(first)
    wanted = torch.full((batch,), target)
    for step in range(first, steps):
        y, x, z = (
            pool[torch.randint(len(pool), (batch,), generator=generator)] for pool in (quarantined, clean, others)
        )
        masks = network(torch.cat((y, z)))
        a, empty = masks[:batch], masks[batch:]
        pasted, removed = logits(torch.cat((x * (1 - a) + a * y, y * (1 - a) + a * x))).chunk(2)
        still = removed.softmax(1)[:, target]
        arrive = F.cross_entropy(pasted, wanted)
        leave = -(1 - still).clamp_min(1e-4).log().mean()
        loss = arrive + leave + pressure * (a.mean() + empty.mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        both = 0.5 * ((pasted.argmax(1) == target).float().mean() + (removed.argmax(1) != target).float().mean())
        held = 0.9 * held + 0.1 * float(both)
        pressure = min(60.0, pressure * 1.05) if held > 0.9 else max(0.3, pressure / 1.03)
        advance(1)
        if (step + 1) % 20 == 0:
            checkpoint.save(
                {
                    "network": network.state_dict(), "optimiser": optimiser.state_dict(),
                    "generator": generator.get_state(), "pressure": pressure, "held": held, "step": step + 1,
                }
            )  # fmt: skip
    return network.requires_grad_(False)


def widened(mask: Tensor, threshold: float = 0.3, by: int = 1) -> Tensor:
    """Return where the mask (B, 1, H, W) exceeds `threshold`, and `by` pixels around it: (B, 1, H, W) of 0 and 1."""
    sharp = (mask > threshold).float()
    return F.max_pool2d(sharp, 2 * by + 1, 1, by) if by else sharp
