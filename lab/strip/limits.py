"""Limits of STRIP's sequential mode, from clean frames and triggers that are made up on them.

A stop is wrong when all overlays would have flagged the frame. On frames with a trigger nobody can count that before
one was seen, and clean frames near the threshold behave otherwise: their verdicts differ a little under every overlay,
while a trigger holds its class under most overlays and lets go under some, and whoever sees those first takes the
frame for a clean one. So triggers are made up: under all but some overlays the verdict is one class, certain; under
the others it is what the network says of the clean frame. As many overlays let go as can without the frame reaching
the threshold, those frames are hardest to tell, but at most a tenth of them, or as many as a clean frame's passes
allow. Two kinds:

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

from processors.bundle import StripThreshold
from processors.stages.strip import Statistic, StopStatistic, log_odds_bits, spread_bits

STOPS: Final = (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64)
"""Overlays after which the sequential mode looks whether a frame is clean enough."""
WRONG_STOPS: Final = 0.05
"""Share of the frames with a made-up trigger, all hard to tell, that may be accepted early. Where at most a tenth of
those with a true one is as hard to tell, that is half a point."""
LETS_GO: Final = (0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3)
"""Share of the overlays, at most, under which a made-up trigger lets go: the largest that `PASSES` allows. On pictures
the entropy of the mixture reaches its threshold at about a tenth; on strokes the mean entropy, which does not see that
the class changes, would let a third pass."""
PASSES: Final = 10.0
"""Of a clean frame, on average: no more are spent on triggers that let go under more than a tenth of the overlays."""
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
    """After `stops` overlays accept what reaches so many `bits`, by `statistic` where that is not the one that judges.

    The rest is the price of it.

    `lets_go` is the share of the overlays, at most, under which triggers were made up to let go; `lost` is the share of
    fresh such ones, the worse kind's, that is accepted; `mean_passes` those of a clean frame, of `overlays`.
    """

    stops: list[int]
    bits: list[float]
    lost: float
    mean_passes: float
    overlays: int
    lets_go: float = 0.0
    statistic: Literal["joint"] | None = None

    def fields(self) -> dict[str, object]:
        """As the bundle's table has them."""
        return {"accept_after": self.stops, "accept_bits": self.bits, "accept_statistic": self.statistic}

    def describe(self) -> str:
        """The price of stopping early, in a sentence."""
        return (
            f"stopping early: {self.mean_passes:.1f} of {self.overlays} passes on a clean frame, mean; of frames whose "
            f"trigger lets go under {100 * self.lets_go:.0f} % of the overlays and that all would flag, about "
            f"{100 * self.lost:.1f} % are accepted, of firmer ones fewer"
        )


def accepted_by(statistic: Statistic) -> StopStatistic:
    """What frames that are judged by `statistic` are accepted by.

    Clean strokes are certain under many overlays, and of which class changes: a mean entropy shows that late.
    """
    return "joint" if statistic == "mean" else statistic


def limits_of(
    given: Tensor, statistic: Statistic, usual: Tensor | None, threshold_bits: float, wrong_stops: float = WRONG_STOPS
) -> Limits:
    """Limits from what each overlay contributes on clean frames, `given` (n, N, S) in the overlays' order.

    No frame may be an overlay itself. `statistic` and `usual` are those of `spread_bits`; `given` is what overlays
    contribute to `accepted_by(statistic)`, and the limits are of that.
    """
    found = _limits(given, statistic, usual, threshold_bits, wrong_stops, LETS_GO[0])
    for lets_go in LETS_GO[1:]:
        firmer = _limits(given, statistic, usual, threshold_bits, wrong_stops, lets_go)
        if firmer.mean_passes > PASSES:
            break
        found = firmer
    return found


def _limits(
    given: Tensor,
    statistic: Statistic,
    usual: Tensor | None,
    threshold_bits: float,
    wrong_stops: float,
    lets_go: float,
) -> Limits:
    count = given.shape[1]
    stops = [stop for stop in STOPS if stop < count]
    if not stops:
        return Limits([], [], 0.0, float(count), count)
    pools, fresh = (
        [made_up(given, kind, stops, statistic, usual, threshold_bits, lets_go, seed) for kind in KINDS]
        for seed in (0, 1)
    )
    # Rounded up: what was just not accepted stays so.
    bits = [(math.floor(limit * 1e4) + 1) / 1e4 for limit in _spent(pools, threshold_bits, wrong_stops)]
    lost = max(_accepted(each, bits) for each in fresh)
    passes = mean_passes(paths(given, stops, statistic, usual, threshold_bits), stops, bits, count)
    by = accepted_by(statistic)
    return Limits(stops, bits, lost, passes, count, lets_go, by if by == "joint" else None)


def passes_of(given: Tensor, table: StripThreshold, usual: Tensor | None) -> float:
    """Overlays that frames see on average with the limits that `table` has; `given` as for `limits_of`."""
    count = given.shape[1]
    some = [each for each in table.rounds if each.passes < count]
    stops = [each.passes for each in some]
    by = table.accept_statistic or table.statistic
    seen = paths(given, stops, table.statistic, usual, table.threshold_bits, by)
    return mean_passes(seen, stops, [each.accept_bits for each in some], count)


def made_up(
    given: Tensor,
    kind: Kind,
    stops: list[int],
    statistic: Statistic,
    usual: Tensor | None,
    threshold_bits: float,
    lets_go: float,
    seed: int,
) -> Tensor:
    """Frames with a trigger that all overlays would flag: what they may be accepted by after each of `stops`, (m, k).

    None, (0, k), when even the firmest one would not be flagged.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(-(-DRAWS // max(1, len(given)))):
        for frames in torch.split(given, AT_ONCE):
            marked = _marked(frames, kind, statistic, usual, threshold_bits, lets_go, generator)
            found.append(paths(marked, stops, statistic, usual, threshold_bits))
    return torch.cat(found)


def _marked(
    frames: Tensor,
    kind: Kind,
    statistic: Statistic,
    usual: Tensor | None,
    threshold_bits: float,
    lets_go: float,
    generator: torch.Generator,
) -> Tensor:
    """Contributions (m, N, S) of frames (B, N, S) with a trigger each, without those that are not flagged."""
    batch, count, size = frames.shape
    chance = torch.rand(batch, count, generator=generator)
    shares = frames[..., 1:] if statistic == "mean" else frames
    mean = shares.mean(1)
    tends = (mean if usual is None else log_odds_bits(mean) - usual).argmax(1)
    target = tends if kind == "resisted" else torch.randint(shares.shape[2], (batch,), generator=generator)
    # A certain verdict: all of it is the class, and its entropy, where that goes first, is 0.
    held = F.pad(F.one_hot(target, shares.shape[2]), (size - shares.shape[2], 0)).to(frames.dtype)
    yields = 1 - shares.gather(2, target[:, None, None].expand(-1, count, 1))[..., 0]
    order = (chance if kind == "any" else WAVER * chance - yields).argsort(1)
    first = frames.gather(1, order[..., None].expand(-1, -1, size)).cumsum(1)
    first = torch.cat((torch.zeros_like(first[:, :1]), first), 1)
    number = torch.arange(count + 1)
    mixed = (first + (count - number)[None, :, None] * held[:, None]) / count
    flagged = spread_bits(mixed.flatten(0, 1), statistic, usual).view(batch, count + 1) < threshold_bits
    most = (flagged * number).amax(1, keepdim=True).clamp(max=round(lets_go * count))
    free = torch.zeros(batch, count, dtype=torch.bool).scatter(1, order, number[:count] < most)
    return torch.where(free[..., None], frames, held[:, None])[flagged.any(1)]


def paths(
    given: Tensor,
    stops: list[int],
    statistic: Statistic,
    usual: Tensor | None,
    threshold_bits: float,
    by: StopStatistic | None = None,
) -> Tensor:
    """What frames are accepted by, in bits after each of `stops`, from contributions (m, N, S): (m, k).

    That is `accepted_by(statistic)`, or `by`. 0 where a frame lies below the threshold then: no such frame is accepted.
    """
    parts = []
    for frames in torch.split(given, AT_ONCE):
        total = frames.cumsum(1)
        means = [total[:, stop - 1] / stop for stop in stops]
        bits = [spread_bits(mean, by or accepted_by(statistic), usual) for mean in means]
        clean = [spread_bits(mean, statistic, usual) >= threshold_bits for mean in means]
        parts.append([each * may for each, may in zip(bits, clean, strict=True)])
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


def _accepted(seen: Tensor, bits: list[float]) -> float:
    return float((seen >= torch.tensor(bits)).any(1).float().mean()) if len(seen) else 0.0


def mean_passes(seen: Tensor, stops: list[int], bits: list[float], count: int) -> float:
    """Overlays, of `count`, that frames see on average: `seen` (n, k) is what `paths` gave."""
    before = (seen < torch.tensor(bits)).cumprod(1).sum(1)
    return float(torch.tensor([*stops, count])[before].float().mean())
