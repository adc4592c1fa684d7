"""The paper's black box: a substitute trained on the attacked network's answers (Papernot et al. 2017).

The attacker has the architecture and 1,000 pictures on which the network was not trained, and queries each one's label.
Shifted copies replace the original's synthetic pictures. The attacker is unaware of the quantisation layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.chance import seeded
from lab.data import LabelledPictures, to_frames
from lab.networks.basic_cnn import BasicCnn

EPOCHS, BATCH, SHIFT = 15, 100, 2


def substitute(answer: Callable[[Tensor], Tensor], known: LabelledPictures, classes: int, seed: int) -> nn.Module:
    """Return a network on frames (B, C, H, W) in [0, 1] that imitates `answer`, which gives logits (B, classes)."""
    frames = to_frames(known.images, torch.device("cpu"))
    with torch.no_grad():
        labels = answer(frames).argmax(1)
    with seeded(seed):
        network = BasicCnn(classes, frames.shape[1], frames.shape[2])
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    chance = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(frames), generator=chance)
        for start in range(0, len(frames), BATCH):
            part = order[start : start + BATCH]
            down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=chance).tolist()
            shown = frames[part].roll((down, right), (2, 3))
            loss = F.cross_entropy(network(shown), labels[part])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
    return network.eval().requires_grad_(False)
