"""Limits of STRIP's sequential mode, from clean frames and synthetic triggers on them.

A stop is wrong if all overlays would have flagged the frame. The rate of wrong stops on real triggers is unknown before
one has been seen. Clean frames near the threshold cannot replace them: their verdicts vary a little under every
overlay. A trigger keeps its class under most overlays and loses it under some, and a test that begins with the latter
accepts the frame.

So triggers are synthesised: under all but some overlays the verdict is one class, with certainty; under the others it
is the network's verdict on the clean frame. As many overlays lose the class as possible without the frame reaching the
threshold, because those frames are the hardest to detect. Their share is at most a tenth, or more while a clean frame
takes at most `PASSES` passes. There are two kinds:

- *any*: any class, and any overlays lose it;
- *resisted*: the class towards which the frame itself tends. It is lost under those overlays under which the frame was
  least of that class, in the order of the test. Overlays that defeat one frame's trigger may defeat others' as well.

Of either kind at most a share `WRONG_STOPS` may be accepted at all stops together. Each stop gets an equal part of it
and the remainder of earlier ones.
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
"""Overlays after which the sequential mode tests whether a frame is clean enough."""
WRONG_STOPS: Final = 0.05
"""Largest share of hard frames with a synthetic trigger that may be accepted early.

If at most a tenth of the frames with a real trigger is as hard to detect, this is half a percentage point.
"""
LETS_GO: Final = (0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25, 0.3)
"""Candidate shares of the overlays under which a synthetic trigger loses its class at most.

The largest candidate that `PASSES` allows is used. On pictures the entropy of the mixture reaches its threshold at
about a tenth. On strokes the mean entropy, which ignores changes of the class, would allow a third.
"""
PASSES: Final = 10.0
"""Most passes of a clean frame, on average. It bounds `lets_go` above a tenth."""
KINDS: Final = ("any", "resisted")
DRAWS: Final = 2000
"""Fewest synthetic triggers of either kind."""
AT_ONCE: Final = 100
"""Frames that are processed together."""
WAVER: Final = 0.3
"""Amount of chance in the overlays that defeat a trigger, relative to 1 for the frame's own verdict."""

Kind = Literal["any", "resisted"]


@dataclass(frozen=True)
class Limits:
    """Early-accept rule: after each of `stops` overlays, accept frames whose `statistic` exceeds `bits`.

    A `statistic` of None is the one that judges. The other fields are the price of the rule. `lets_go` is the largest
    share of the overlays under which synthetic triggers lose their class. `lost` is the accepted share of fresh ones,
    of the worse kind. `mean_passes` is the mean number of passes of a clean frame, out of `overlays`.
    """

    stops: list[int]
    bits: list[float]
    lost: float
    mean_passes: float
    overlays: int
    lets_go: float = 0.0
    statistic: Literal["joint"] | None = None

    def fields(self) -> dict[str, object]:
        """Return the fields of the bundle's table."""
        return {"accept_after": self.stops, "accept_bits": self.bits, "accept_statistic": self.statistic}

    def describe(self) -> str:
        """Return the price of stopping early, in a sentence."""
        return (
            f"stopping early: {self.mean_passes:.1f} of {self.overlays} passes on a clean frame, mean; of frames whose "
            f"trigger lets go under {100 * self.lets_go:.0f} % of the overlays and that all would flag, about "
            f"{100 * self.lost:.1f} % are accepted, of firmer ones fewer"
        )


def accepted_by(statistic: Statistic) -> StopStatistic:
    """Return the acceptance statistic of frames that are judged by `statistic`.

    Clean strokes are certain under many overlays, but of changing classes. A mean entropy shows that late.
    """
    return "joint" if statistic == "mean" else statistic


def limits_of(
    given: Tensor, statistic: Statistic, usual: Tensor | None, threshold_bits: float, wrong_stops: float = WRONG_STOPS
) -> Limits:
    """Return limits from each overlay's contributions on clean frames, `given` (n, N, S) in the overlays' order.

    No frame may be an overlay itself. `statistic` and `usual` are those of `spread_bits`. `given` are the overlays'
    contributions to `accepted_by(statistic)`, to which the limits apply.
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
    # Rounded up: a frame at the limit is still not accepted.
    bits = [(math.floor(limit * 1e4) + 1) / 1e4 for limit in _spent(pools, threshold_bits, wrong_stops)]
    lost = max(_accepted(each, bits) for each in fresh)
    passes = mean_passes(paths(given, stops, statistic, usual, threshold_bits), stops, bits, count)
    by = accepted_by(statistic)
    return Limits(stops, bits, lost, passes, count, lets_go, by if by == "joint" else None)


def passes_of(given: Tensor, table: StripThreshold, usual: Tensor | None) -> float:
    """Return the mean number of overlays per frame with the limits of `table`; `given` as for `limits_of`."""
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
    """Return the acceptance statistic after each of `stops`, (m, k), of triggered frames that all overlays would flag.

    It is empty, (0, k), if even the strongest one would not be flagged.
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
    """Return contributions (m, N, S) of frames (B, N, S) with a trigger each, without those that are not flagged."""
    batch, count, size = frames.shape
    chance = torch.rand(batch, count, generator=generator)
    shares = frames[..., 1:] if statistic == "mean" else frames
    mean = shares.mean(1)
    tends = (mean if usual is None else log_odds_bits(mean) - usual).argmax(1)
    target = tends if kind == "resisted" else torch.randint(shares.shape[2], (batch,), generator=generator)
    # A certain verdict: the class has all the probability, and the entropy, if it comes first, is 0.
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
    """Return the acceptance statistic in bits after each of `stops`, from contributions (m, N, S): (m, k).

    It is `accepted_by(statistic)`, or `by`. It is 0 if a frame is below the threshold then: no such frame is accepted.
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
    """Return limits that accept at most a share `wrong_stops` of each pool (m, k), spread over the stops."""
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
    """Return the mean number of overlays per frame, out of `count`. `seen` (n, k) is the result of `paths`."""
    before = (seen < torch.tensor(bits)).cumprod(1).sum(1)
    return float(torch.tensor([*stops, count])[before].float().mean())
