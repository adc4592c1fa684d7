"""Losses and savings of the chain at the network's scale, compared with rebuilding whole frames.

Held-out scenes of 64 to 1,080 lines pass through the pixel drop and then take two ways to the same network: the chain
as it runs (`Pipeline`), and every frame rebuilt whole and resized. `hard` scenes are dark, noisy, blurred and small, so
that 80 to 95 of 100 whole frames are classified correctly. `dim` and usual scenes are also attacked by a blind PGD at
the frame's own size, under which no hard scene would remain correct.

The interval of a ratio is that of the paired difference (`paired_interval`) ÷ the accuracy of the whole reconstruction.
Frames that the chain rebuilds whole never differ.

Two more columns show both variants of the chain at scale, filled and restored, independent of its own rule. The last
table shows milliseconds per frame on one thread, with the cost of a network with random weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.attacks import make_attack, to_8_bits
from lab.data import LabelledPictures, to_frames
from lab.masks import random_masks
from lab.networks.families import densenet, mobilenet
from lab.statistics import Interval, paired_interval
from processors.bundle import Bundle
from processors.networks.resnet import resnet20
from processors.pipeline import Pipeline
from processors.stages.at_scale import at_scale, density
from processors.stages.learned import reconstruct_learned
from processors.stages.plate import reconstruct_plate
from producers.scene.simulator import SCENE_FRAMES, Conditions, SceneSimulator

SEED: Final = 3
"""Seed of the held-out scenes, as in `lab.training.scene`."""
FIRST_CAMERA: Final = 60_000
"""A camera number beyond those of any training or test."""
PER_CAMERA: Final = 10
CONDITIONS: Final = {
    "usual": Conditions(),
    "dim": Conditions(light=0.75, noise=2, blur=1.2, distance=1.1),
    "hard": Conditions(light=0.5, noise=3, blur=1.5, distance=1.25),
}
WHOLE: Final = "rebuilt whole"
"""The way of frames that the chain itself rebuilds whole."""
LARGE: Final = 240
"""Lines from which frames are large."""
RATIOS: Final = (0.25, 0.5, 0.75)
EPS: Final = 0.03
BATCH_PIXELS: Final = 2**18
SIZES: Final = {
    (64, 64): (800, 800),
    (80, 80): (800, 800),
    (96, 96): (800, 800),
    (240, 320): (300, 150),
    (480, 640): (120, 50),
    (720, 1280): (40, 16),
    (1080, 1920): (20, 10),
}
"""Height and width, the number of clean frames, and the number of attacked frames in each light."""
COSTS: Final = ((32, 32), (96, 96), (224, 224))
"""Network input sizes of the timing table, for 768×432 frames."""


@dataclass(frozen=True)
class Row:
    """Accuracies, and the ratio of the chain's to the whole reconstruction's with its paired interval of 95 %."""

    scenes: str
    attack: str
    height: int
    width: int
    drop: float
    density: float
    way: str
    frames: int
    undropped: float
    whole: float
    chain: float
    ratio: float
    ratio_low: float
    ratio_high: float
    filled: float
    restored: float
    whole_ms: float
    chain_ms: float


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one 768×432 frame on one thread, by the network's input."""

    input: str
    drop: float
    resampled_and_filled_ms: float
    restorer_ms: float
    whole_ms: float
    network: str
    network_ms: float


def scenes(count: int, size: tuple[int, int], conditions: Conditions, seed: int = SEED) -> LabelledPictures:
    """Return `count` held-out scenes, each of another place, (count, height, width, 3) uint8."""
    images, labels = [], []
    for number in range(count):
        if number % PER_CAMERA == 0:
            simulator = SceneSimulator(seed, FIRST_CAMERA + number // PER_CAMERA, size, 3, conditions)
        picture, label = simulator.render(number % PER_CAMERA * SCENE_FRAMES + number % SCENE_FRAMES)
        images.append(picture)
        labels.append(label)
    return LabelledPictures("scenes", np.stack(images), np.array(labels, np.int64))


def ratio_interval(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> Interval:
    """Return the ratio of two shares of the same n frames, and the paired interval of their difference ÷ the second.

    The ratio is 1 if the second share is 0.
    """
    share = float(theirs.mean())
    if not share:
        return Interval(1.0, 1.0, 1.0)
    difference, low, high = paired_interval(ours, theirs)
    return Interval(1 + difference / share, 1 + low / share, 1 + high / share)


def measure(pipeline: Pipeline, name: str, size: tuple[int, int], count: int, attacked: bool) -> Iterator[Row]:
    """Yield a row for each drop ratio."""
    bundle, (height, width) = pipeline.bundle, size
    pictures = scenes(count, size, CONDITIONS[name])
    frames, labels = to_frames(pictures.images, bundle.device), torch.from_numpy(pictures.labels)
    step = max(1, BATCH_PIXELS // (height * width))
    parts = [slice(start, start + step) for start in range(0, count, step)]

    def network(some: Tensor) -> Tensor:
        return bundle.logits(bundle.prepare(some))

    if attacked:
        attack, chance = make_attack("pgd", EPS), torch.Generator().manual_seed(1)
        frames = torch.cat(
            [to_8_bits(attack(network, frames[part], labels[part], None, chance).detach()) for part in parts]
        )
    undropped = _right(network, frames, labels, parts)
    for drop in RATIOS:
        masks = random_masks(count, height, width, drop, torch.Generator().manual_seed(2))
        sent = frames * masks
        wanted = bundle.settings.input.height, bundle.settings.input.width
        begun = time.perf_counter()
        whole = _right(lambda x, m: bundle.logits(bundle.prepare(pipeline.rebuild(x, m))), sent, labels, parts, masks)
        between = time.perf_counter()
        chain = _right(pipeline.logits, sent, labels, parts, masks)
        ended = time.perf_counter()
        filled, restored = (
            _right(partial(_filled_by, fill, bundle), sent, labels, parts, masks)
            for fill in (reconstruct_plate, reconstruct_learned)
        )
        each = float(density(masks[:1], *wanted))
        way = (WHOLE, "restored", "filled")[[bool(some) for some in pipeline.ways(masks[:1])].index(True)]
        found = Interval(1.0, 1.0, 1.0) if way == WHOLE else ratio_interval(chain, whole)
        yield Row(
            name, f"PGD {EPS:g}" if attacked else "", height, width, drop, each, way, count, float(undropped.mean()),
            float(whole.mean()), float(chain.mean()), *found, float(filled.mean()), float(restored.mean()),
            1000 * (between - begun) / count, 1000 * (ended - between) / count,
        )  # fmt: skip


def _filled_by(fill: Callable[[Tensor, Tensor], Tensor], bundle: Bundle, frames: Tensor, kept: Tensor) -> Tensor:
    wanted = bundle.settings.input
    return bundle.logits(bundle.prepare(fill(*at_scale(frames, kept, wanted.height, wanted.width))))


@torch.inference_mode()
def _right(
    logits: Callable[..., Tensor], frames: Tensor, labels: Tensor, parts: list[slice], *more: Tensor
) -> NDArray[np.bool_]:
    found = [logits(frames[part], *(each[part] for each in more)).argmax(1) == labels[part] for part in parts]
    return np.asarray(torch.cat(found).numpy())


@torch.inference_mode()
def costs() -> Iterator[Cost]:
    """Yield the cost of each part on a camera's frame, for networks of several inputs."""
    networks = {32: ("ResNet-20", resnet20(10)), 96: ("MobileNet", mobilenet()), 224: ("DenseNet", densenet())}
    height, width = 432, 768
    for drop in (0.25, 0.75):
        kept = random_masks(1, height, width, drop, torch.Generator().manual_seed(0))
        frames = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * kept
        whole = _milliseconds(partial(reconstruct_learned, frames, kept))
        for size in COSTS:
            pictures, known = at_scale(frames, kept, *size)
            name, network = networks[size[0]]
            network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from stubs
            yield Cost(
                f"{size[1]}×{size[0]}",
                drop,
                _milliseconds(partial(_resampled, frames, kept, size)),
                _milliseconds(partial(reconstruct_learned, pictures, known)),
                whole,
                f"{name} at random weights",
                _milliseconds(partial(network, pictures)),
            )


def _resampled(frames: Tensor, kept: Tensor, size: tuple[int, int]) -> Tensor:
    return reconstruct_plate(*at_scale(frames, kept, *size))


def _milliseconds(work: Callable[[], object], repeats: int = 15) -> float:
    """Return the least of several runs: other load on the machine only adds time."""
    work()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return 1000 * min(taken)
