"""A network that imitates a defence, to provide the gradient that the defence lacks.

It is the adaptive BPDA of Qiu et al. (section 6.4, after Raff et al. 2019): a 6-layer DenseNet auto-encoder, trained on
pairs of a picture and its defended version. Neither paper gives its widths. Here each layer has 16 feature maps and
takes the output of all layers before it. The last layer's output is added to the picture. For a random defence the
network learns the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.attacks.contract import check_request
from lab.baselines import Baseline
from lab.chance import seeded
from schemas.errors import ConfigError

LAYERS = 6
_GROWTH = 16
_BATCH = 64
_RATE = 2e-3


class AutoEncoder(nn.Module):
    """Six 3×3 convolutions, densely connected: frames (B, C, H, W) in [0, 1] to frames of the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels + _GROWTH * number for number in range(LAYERS)]
        outputs = [_GROWTH] * (LAYERS - 1) + [channels]
        pairs = zip(widths, outputs, strict=True)
        self.layers = nn.ModuleList([nn.Conv2d(width, output, 3, padding=1) for width, output in pairs])

    def forward(self, frames: Tensor) -> Tensor:
        """Return the imitated frames. See the class."""
        known = frames
        for layer in self.layers[:-1]:
            known = torch.cat((known, F.leaky_relu(layer(known), 0.1)), 1)
        output: Tensor = frames + self.layers[-1](known)
        return output


def learn_surrogate(forward: Baseline, pictures: Tensor, *, seed: int, steps: int = 600) -> Baseline:
    """Return a backward pass for `bpda`, trained on `steps` batches of `pictures` (N, C, H, W) in [0, 1].

    Each batch is freshly defended. The network is the least squares fit of `forward`, by Adam with a falling rate.
    Initial weights, order and draws come from `seed`. Raises ConfigError without pictures in the range.
    """
    if not len(pictures) or steps < 1:
        raise ConfigError(f"surrogate: expected pictures and at least one step, got {len(pictures)} and {steps}")
    check_request(pictures, torch.zeros(len(pictures), dtype=torch.int64, device=pictures.device), None, None, "linf")
    chance = torch.Generator().manual_seed(seed)
    with seeded(seed):
        network = AutoEncoder(pictures.shape[1]).to(pictures.device)
    optimiser = torch.optim.Adam(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps)
    with torch.enable_grad():
        for _ in range(steps):
            frames = pictures[torch.randint(len(pictures), (_BATCH,), generator=chance).to(pictures.device)]
            with torch.no_grad():
                wanted = forward(frames, chance)
            loss = F.mse_loss(network(frames), wanted)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # missing from torch's annotations
            optimiser.step()
            schedule.step()
    network.requires_grad_(False).eval()

    def imitate(frames: Tensor, generator: torch.Generator) -> Tensor:
        output: Tensor = network(frames)
        return output

    return imitate
