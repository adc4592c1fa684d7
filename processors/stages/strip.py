"""STRIP: a backdoored frame keeps its class under any overlay (Gao et al. 2019, section IV).

Clean frames change class with the overlay, and the entropy of their verdicts is high; a trigger keeps it near zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from processors.stages.shapes import check_frames
from schemas.errors import StageError

Logits = Callable[..., Tensor]
"""A function from pictures (M, C, H, W), with seeds (M,) if they have them, to logits (M, classes)."""

Statistic = Literal["mean", "mixture", "odds"]
"""The statistic of a frame's verdicts, see `spread_bits`: their mean entropy, the entropy of their mixture, or the
excess of a class of the mixture over its usual odds.
"""

StopStatistic = Literal[Statistic, "joint"]
"""The statistic for early acceptance: the one that judges the frame, or for `mean` the `joint` one."""

JOINT_SHARE = 0.2
"""Weight of the mixture's entropy relative to the mean entropy, for `joint`."""

LEAST_SHARE = 1e-4
"""Bound of the shares of a mixture for their odds: at least this, and at most one less this."""

CPU_PIXELS = 1 << 16
"""Maximum number of pixels in one pass of the network on the CPU: more exceed the processor's caches."""
GPU_PIXELS = 1 << 22


class Round(NamedTuple):
    """A limit of the sequential test: after `passes` overlays, a frame of at least `accept_bits` is accepted."""

    passes: int
    accept_bits: float


@dataclass(frozen=True, slots=True)
class StripResult:
    """The result for each frame: entropy in bits over its overlays, their number, and whether it is suspect.

    All are (B,). The entropy of a suspect frame lies below the threshold, that of an accepted one does not.
    """

    entropy_bits: Tensor
    passes: Tensor
    flagged: Tensor


def class_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in bits of softmax(logits) over the classes: (B, classes) to (B,), from 0 to log2(classes)."""
    log_p = torch.log_softmax(logits, dim=1)
    # 0 · log 0 is 0, but a class with probability 0 has log_p = −inf in half precision.
    return -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(1) / math.log(2)


def overlaid_logits(
    frames: Tensor,
    overlays: Tensor,
    logits: Logits,
    *,
    clamped: bool = False,
    seeds: Tensor | None = None,
    max_batch: int | None = None,
) -> Tensor:
    """Return the logits (B, N, classes) of `frames + overlay` for each of the N overlays.

    `frames` is (B, C, H, W) and `overlays` (N, C, H, W), both in [0, 1]. The sum is not blended and, unless `clamped`,
    not clamped: `logits` gets values in [0, 2]. Clamping suits strokes on black: it joins two drawings into one, and
    the unclamped sum makes them bolder. In natural pictures it erases bright parts.

    `logits` is called with at most `max_batch` pictures, overlays of several frames together; None chooses a size for
    the device. It also gets `seeds` (B, N) if each sum has its own. Raises StageError if the shapes do not fit each
    other or there is no overlay.
    """
    check_frames(frames)
    check_frames(overlays, "overlays")
    if overlays.shape[1:] != frames.shape[1:] or not len(overlays):
        raise StageError(
            f"overlays: expected (N, {', '.join(map(str, frames.shape[1:]))}) with N at least 1, "
            f"got {tuple(overlays.shape)}"
        )
    if max_batch is None:
        max_batch = most_at_once(frames)
    if max_batch < 1:
        raise StageError(f"max_batch: expected at least 1, got {max_batch}")
    n = len(overlays)
    total = len(frames) * n
    parts = []
    for start in range(0, total, max_batch):
        pair = torch.arange(start, min(start + max_batch, total), device=frames.device)
        summed = frames[pair // n] + overlays[pair % n]
        pictures = summed.clamp_(0, 1) if clamped else summed
        verdicts = logits(pictures) if seeds is None else logits(pictures, seeds[pair // n, pair % n])
        if verdicts.ndim != 2 or len(verdicts) != len(pair):
            raise StageError(f"logits: expected ({len(pair)}, classes), got {tuple(verdicts.shape)}")
        parts.append(verdicts)
    if not parts:
        return frames.new_zeros(0, n, 1)
    together = torch.cat(parts)
    return together.view(-1, n, together.shape[1])


def most_at_once(frames: Tensor) -> int:
    """Return the number of pictures like `frames` (B, C, H, W) that suits one pass of the network on their device."""
    pixels = GPU_PIXELS if frames.device.type == "cuda" else CPU_PIXELS
    return max(1, pixels // (frames.shape[2] * frames.shape[3]))


def strip(
    frames: Tensor,
    overlays: Tensor,
    logits: Logits,
    *,
    threshold_bits: float,
    rounds: Sequence[Round] = (),
    statistic: Statistic = "mean",
    accept_by: StopStatistic | None = None,
    usual: Tensor | None = None,
    clamped: bool = False,
    seeds: Tensor | None = None,
    max_batch: int | None = None,
) -> StripResult:
    """Judge frames (B, C, H, W): a frame is suspect if its `statistic` over all overlays lies below `threshold_bits`.

    With `rounds`, the test is sequential. Overlays are used in order; after each round, the frames that reach its limit
    by the statistic `accept_by` are accepted, and the others continue together. The default of `accept_by` is
    `statistic`; with another one, no frame below the threshold is accepted. No frame is flagged before it has had every
    overlay: a stop in both directions doubles the false rejections. Rounds with at least as many passes as there are
    overlays have no effect.

    `usual` (classes,) belongs to the statistic `odds`. Other arguments and errors are those of `overlaid_logits`.
    """
    by = accept_by or statistic
    if by not in (statistic, "joint") or (by == "joint" and statistic != "mean"):
        raise StageError(f"accept_by: expected {statistic}, or joint with the statistic mean; got {by}")
    count = len(overlays)
    stops = sorted(stop for stop in rounds if 0 < stop.passes < count)
    bits = frames.new_zeros(len(frames))
    passes = torch.full((len(frames),), count, device=frames.device)
    going = torch.arange(len(frames), device=frames.device)
    total: Tensor | None = None
    seen = 0
    for stop in (*stops, Round(count, math.inf)):
        some = overlays[seen : stop.passes] if seen or stops else overlays
        own = None if seeds is None else seeds[going, seen : stop.passes]
        verdicts = overlaid_logits(frames[going], some, logits, clamped=clamped, seeds=own, max_batch=max_batch)
        new = contributions(verdicts, by).sum(1)
        total = new if total is None else total + new
        seen = stop.passes
        found = spread_bits(total / seen, statistic, usual)
        bits[going] = found.to(bits.dtype)
        if seen == count:
            break
        clean = found >= stop.accept_bits
        if by != statistic:
            clean = (spread_bits(total / seen, by, usual) >= stop.accept_bits) & (found >= threshold_bits)
        passes[going[clean]] = seen
        going, total = going[~clean], total[~clean]
        if not len(going):
            break
    return StripResult(bits, passes, (passes == count) & (bits < threshold_bits))


def contributions(verdicts: Tensor, statistic: StopStatistic) -> Tensor:
    """Return the contribution of each verdict (B, N, classes), logits, to its frame's mean: (B, N, S).

    S is 1 for `mean`, the entropy; it is the number of classes for the others, the probabilities. For `joint` it is the
    entropy and then the probabilities.
    """
    shares = verdicts.float().softmax(2) if verdicts.dtype.itemsize < 4 else verdicts.softmax(2)
    if statistic in ("mixture", "odds"):
        return shares
    entropy = class_entropy(verdicts.flatten(0, 1)).view(*verdicts.shape[:2], 1)
    return entropy if statistic == "mean" else torch.cat((entropy.to(shares.dtype), shares), 2)


def log_odds_bits(mixture: Tensor) -> Tensor:
    """Return the odds of each class in mixtures (B, classes), in bits: log₂(p / (1 − p)), p clamped away from 0 and
    1."""
    share = mixture.clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    return (share / (1 - share)).log2()


def spread_bits(mean: Tensor, statistic: StopStatistic, usual: Tensor | None = None) -> Tensor:
    """Return the statistic in bits (B,) of a frame's mean contribution (B, S): the spread of its verdicts.

    - `mean` is the paper's, the mean entropy of the verdicts.
    - `mixture` is the entropy of their mean distribution, never less: it includes the differences between verdicts. A
      trigger that lost pixels no longer makes every verdict certain but still pulls all of them to one class. This
      statistic detects that better.
    - `odds` compares with the usual odds: overlays favour some classes, and a trigger favours another one. Take the
      classes' log odds in the mixture, less `usual` (classes,), which clean frames hardly exceed; the largest is x. The
      statistic is 2^−x: positive, small for a suspect frame, and its logarithm is in bits.
    - `joint` is the mean entropy and `JOINT_SHARE` of the mixture's: either accepts clean frames. Its mean contribution
      also serves `mean`.
    """
    if statistic == "odds":
        if usual is None or usual.shape != mean.shape[1:]:
            got = "none" if usual is None else str(tuple(usual.shape))
            raise StageError(f"usual: expected log odds of {mean.shape[1]} classes for the statistic odds, got {got}")
        return torch.exp2(-(log_odds_bits(mean) - usual).amax(1))
    if statistic == "mixture":
        return -torch.xlogy(mean, mean).sum(1) / math.log(2)
    if statistic == "joint":
        return mean[:, 0] + JOINT_SHARE * spread_bits(mean[:, 1:], "mixture")
    return mean[:, 0]
