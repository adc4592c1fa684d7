"""Self-supervised pre-training of the generator's encoder: two views of a picture get similar vectors.

Bai et al. (2023), section IV-C: the contrastive loss of SimCLR (Chen et al. 2020) with its projection head, which is
discarded afterwards. No label is read. Then the gate behind the encoder is trained on labels to classify pictures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.aigan.generator import Encoder, Generator
from lab.aigan.losses import contrastive_loss

BATCH = 256
RATE = 3e-3
PROJECTED = 64
GATE_BATCH = 64
GATE_RATE = 2e-3


def view(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Return another view of `pictures` (B, C, H, W) in [0, 1]: cropped, brightened or darkened, tinted, noisy."""
    count = len(pictures)
    share = 0.6 + 0.4 * torch.rand(count, 1, 1, generator=generator)
    centre = (1 - share) * (2 * torch.rand(count, 2, 1, generator=generator) - 1)
    place = torch.cat((torch.eye(2).expand(count, 2, 2) * share, centre), 2)
    grid = F.affine_grid(place, list(pictures.shape), align_corners=False)
    cut = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    gain = 0.6 + 0.8 * torch.rand(count, pictures.shape[1], 1, 1, generator=generator)
    return (cut * gain + 0.05 * torch.randn(cut.shape, generator=generator)).clamp(0, 1)


class Projection(nn.Module):
    """A head from the encoder's deepest maps (B, C, H, W) to the vectors (B, 64) of the contrastive loss."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, PROJECTED))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the vectors. See the class."""
        vectors: Tensor = self.layers(maps.mean((2, 3)))
        return vectors


def pretrain(encoder: Encoder, pictures: Tensor, steps: int, generator: torch.Generator) -> float:
    """Train `encoder` in place on `pictures` (N, C, H, W) uint8.

    Return the mean loss of the last tenth of the steps.
    """
    projection = Projection(encoder.down.out_channels)
    optimiser = torch.optim.Adam([*encoder.parameters(), *projection.parameters()], RATE)
    encoder.train()
    losses = []
    for _ in range(steps):
        index = torch.randint(len(pictures), (min(BATCH, len(pictures)),), generator=generator)
        frames = pictures[index].float() / 255
        vectors = [projection(F.relu(encoder(view(frames, generator))[1])) for _ in range(2)]
        loss = contrastive_loss(*vectors)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last) if last else float("nan")


def teach_gate(
    network: Generator, pictures: Tensor, labels: Tensor, steps: int, flip: bool, generator: torch.Generator
) -> None:
    """Train the gate, together with the encoder, to classify `pictures` (N, C, H, W) uint8."""
    learning = [*network.encoder.parameters(), *network.gate.parameters()]
    optimiser = torch.optim.Adam(learning, GATE_RATE)
    network.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = GATE_RATE * (1 - step / steps)
        index = torch.randint(len(pictures), (GATE_BATCH,), generator=generator)
        frames = pictures[index].float() / 255
        if flip:
            frames = mirrored(frames, generator)
        loss = F.cross_entropy(network.guessed(frames), labels[index])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimiser.step()


def mirrored(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return `frames` (B, C, H, W), of which a random half is mirrored left to right."""
    flipped = torch.rand(len(frames), 1, 1, 1, generator=generator) < 0.5
    return torch.where(flipped, frames.flip(3), frames)
