"""Limits of STRIP's sequential mode, from clean frames and triggers that are made up on them.

A stop is wrong when all overlays would have flagged the frame. On frames with a trigger nobody can count that before
one was seen, and clean frames near the threshold behave otherwise: their verdicts differ a little under every overlay,
while a trigger holds its class under most overlays and lets go under some, and whoever sees those first takes the
frame for a clean one. So triggers are made up: under all but some overlays the verdict is one class, certain; under
the others it is what the network says of the clean frame. As many overlays let go as can without the frame reaching
the threshold: those frames are hardest to tell. Two kinds:

- *any*: any class, and any overlays let go;
- *resisted*: the class that the frame tends to itself, and those overlays let go under which it was least that class,
  in the order in which overlays are looked at: what one frame's trigger yields to, others' may yield to as well.

Of either kind at most a share `WRONG_STOPS` may be accepted at all stops together, each stop having an equal part of it
and what earlier ones left over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from processors.stages.strip import Statistic, log_odds_bits, spread_bits

STOPS: Final = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Overlays after which the sequential mode looks whether a frame is clean enough."""
WRONG_STOPS: Final = 0.02
"""Share of the frames with a made-up trigger, all just below the threshold, that may be accepted early."""
KINDS: Final = ("any", "resisted")
DRAWS: Final = 2000
"""Made-up triggers of either kind, at least."""
AT_ONCE: Final = 100
"""Frames that are worked on together."""
WAVER: Final = 0.3
"""How much chance there is in which overlays a trigger yields to, against 1 for all of the frame's own verdict."""

Kind = Literal["any", "resisted"]


@dataclass(frozen=True)
class Limits:
    """After `stops` overlays accept what reaches so many `bits`. The rest is the price of it.

    `lost` is the share of fresh made-up triggers just below the threshold, the worse kind's, that is accepted;
    `mean_passes` those of a clean frame, of `overlays`.
    """

    stops: list[int]
    bits: list[float]
    lost: float
    mean_passes: float
    overlays: int

    def describe(self) -> str:
        """The price of stopping early, in a sentence."""
        return (
            f"stopping early: {self.mean_passes:.1f} of {self.overlays} passes on a clean frame, mean; of frames whose "
            f"trigger all overlays would only just flag, about {100 * self.lost:.1f} % are accepted, of others fewer"
        )


def limits_of(
    given: Tensor, statistic: Statistic, usual: Tensor | None, threshold_bits: float, wrong_stops: float = WRONG_STOPS
) -> Limits:
    """Limits from what each overlay contributes on clean frames, `given` (n, N, S) in the overlays' order.

    No frame may be an overlay itself. `statistic` and `usual` are those of `spread_bits`.
    """
    count = given.shape[1]
    stops = [stop for stop in STOPS if stop < count]
    seen = _paths(given, stops, statistic, usual)
    if not stops:
        return Limits([], [], 0.0, float(count), count)
    pools = [made_up(given, kind, stops, statistic, usual, threshold_bits, seed=0) for kind in KINDS]
    bits = _spent(pools, threshold_bits, wrong_stops)
    # Rounded up: what was just not accepted stays so.
    bits = [(math.floor(limit * 1e4) + 1) / 1e4 for limit in bits]
    fresh = [made_up(given, kind, stops, statistic, usual, threshold_bits, seed=1) for kind in KINDS]
    lost = max(_accepted(paths, bits) for paths in fresh)
    return Limits(stops, bits, lost, _mean_passes(seen, stops, bits, count), count)


def made_up(
    given: Tensor,
    kind: Kind,
    stops: list[int],
    statistic: Statistic,
    usual: Tensor | None,
    threshold_bits: float,
    seed: int,
) -> Tensor:
    """Frames with a trigger that all overlays would just flag: their statistic in bits after each of `stops`, (m, k).

    None, (0, k), when even the firmest one would not be flagged.
    """
    generator = torch.Generator().manual_seed(seed)
    paths = []
    for _ in range(-(-DRAWS // max(1, len(given)))):
        for frames in torch.split(given, AT_ONCE):
            marked = _marked(frames, kind, statistic, usual, threshold_bits, generator)
            paths.append(_paths(marked, stops, statistic, usual))
    return torch.cat(paths)


def _marked(
    frames: Tensor,
    kind: Kind,
    statistic: Statistic,
    usual: Tensor | None,
    threshold_bits: float,
    generator: torch.Generator,
) -> Tensor:
    """Contributions (m, N, S) of frames (B, N, S) with a trigger each, without those that are not flagged."""
    batch, count, size = frames.shape
    chance = torch.rand(batch, count, generator=generator)
    if statistic == "mean":
        # A certain verdict has no entropy; what is far from it is large.
        held, yields = torch.zeros(batch, size), frames[..., 0] / frames[..., 0].amax(1, keepdim=True).clamp_min(1e-9)
    else:
        mean = frames.mean(1)
        tends = (mean if usual is None else log_odds_bits(mean) - usual).argmax(1)
        target = tends if kind == "resisted" else torch.randint(size, (batch,), generator=generator)
        held = F.one_hot(target, size).to(frames.dtype)
        yields = 1 - frames.gather(2, target[:, None, None].expand(-1, count, 1))[..., 0]
    order = (chance if kind == "any" else WAVER * chance - yields).argsort(1)
    first = frames.gather(1, order[..., None].expand(-1, -1, size)).cumsum(1)
    first = torch.cat((torch.zeros_like(first[:, :1]), first), 1)
    number = torch.arange(count + 1)
    mixed = (first + (count - number)[None, :, None] * held[:, None]) / count
    flagged = spread_bits(mixed.flatten(0, 1), statistic, usual).view(batch, count + 1) < threshold_bits
    most = (flagged * number).amax(1, keepdim=True)
    lets_go = torch.zeros(batch, count, dtype=torch.bool).scatter(1, order, number[:count] < most)
    return torch.where(lets_go[..., None], frames, held[:, None])[flagged.any(1)]


def _paths(given: Tensor, stops: list[int], statistic: Statistic, usual: Tensor | None) -> Tensor:
    """The statistic in bits of contributions (m, N, S) after each of `stops`: (m, k)."""
    parts = []
    for frames in torch.split(given, AT_ONCE):
        total = frames.cumsum(1)
        parts.append([spread_bits(total[:, stop - 1] / stop, statistic, usual) for stop in stops])
    if not stops or not parts:
        return given.new_zeros(len(given), len(stops))
    return torch.cat([torch.stack(part, 1) for part in parts])


def _spent(pools: list[Tensor], threshold_bits: float, wrong_stops: float) -> list[float]:
    """Limits at which of each pool (m, k) no more than a share `wrong_stops` is accepted, spread over the stops."""
    stops = pools[0].shape[1]
    going = [torch.ones(len(pool), dtype=torch.bool) for pool in pools]
    bits = []
    for place in range(stops):
        limit = threshold_bits
        for pool, still in zip(pools, going, strict=True):
            may = math.floor(wrong_stops * (place + 1) / stops * len(pool)) - int((~still).sum())
            highest = pool[still, place].sort(descending=True).values
            if may < len(highest):
                limit = max(limit, float(highest[max(0, may)]))
        bits.append(limit)
        for pool, still in zip(pools, going, strict=True):
            still &= pool[:, place] <= limit
    return bits


def _accepted(paths: Tensor, bits: list[float]) -> float:
    return float((paths >= torch.tensor(bits)).any(1).float().mean()) if len(paths) else 0.0


def _mean_passes(paths: Tensor, stops: list[int], bits: list[float], count: int) -> float:
    before = (paths < torch.tensor(bits)).cumprod(1).sum(1)
    return float(torch.tensor([*stops, count])[before].float().mean())
