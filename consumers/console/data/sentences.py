"""Sentences of pages, written from the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from consumers.cameras.state import State
from consumers.console.data.rate_text import frame_rate
from consumers.console.data.roles import RoleState, unwell

_LEAST_SHARE: Final = 1e-9
_BY: Final = {
    "entropy": "by the verdicts under overlays",
    "disagreement": "by the labels behind random drops",
    "typicality": "by the features for the label",
    "layer_disagreement": "by what earlier layers see",
    "scaled_norms": "by the label in amplified networks",
}


@dataclass(frozen=True)
class Traffic:
    """The frames that move through the system now."""

    frames_per_second: float
    latency_s: float | None
    """Seconds from capture to record; None without frames."""
    lost: int | None
    """Frames that the last live audit counted as lost; None before the first audit."""


def fleet_sentence(counts: Mapping[State, int], traffic: Traffic, muted: int = 0, away: int = 0) -> str:
    """Return the fleet in words, such as `11 fine, 1 offline. 78 frames/s, 40 ms to the verdict, nothing lost.`

    `counts` holds the number of cameras in each state, without the `muted` ones and those of sites that are `away`.
    Short if all is well.
    """
    if not counts and not muted and not away:
        return ""
    groups = {"need a look": 0, "offline": 0, "paused or ended": 0}
    for state, number in counts.items():
        if state is State.OFFLINE:
            groups["offline"] += number
        elif state.is_fault:
            groups["need a look"] += number
        elif state is not State.ONLINE:
            groups["paused or ended"] += number
    fine, total = counts.get(State.ONLINE, 0), sum(counts.values()) + muted + away
    parts = [f"{fine:,} fine"] if fine else []
    parts += [f"{number:,} {_agreed(words, number)}" for words, number in groups.items() if number]
    parts += [f"{muted:,} muted"] if muted else []
    parts += [f"{away:,} away"] if away else []
    cameras = "All fine" if fine == total else ", ".join(parts)
    return f"{cameras}. {traffic_sentence(traffic)}"


def system_sentence(roles: Sequence[RoleState], traffic: Traffic) -> str:
    """Return the system in words, such as `All 9 roles are up. 78 frames/s, 40 ms from camera to verdict.`"""
    moves = traffic_sentence(traffic)
    if not roles:
        return moves
    if down := unwell(roles):
        return f"{initial(down)}. {moves}"
    return f"{'The only role is' if len(roles) == 1 else f'All {len(roles)} roles are'} up. {moves}"


def traffic_sentence(traffic: Traffic) -> str:
    """Return rate, latency and losses in words."""
    if not traffic.frames_per_second:
        moves = ["no frames now"]
    else:
        moves = [frame_rate(traffic.frames_per_second, "frames")]
        if traffic.latency_s is not None:
            moves.append(f"{duration(traffic.latency_s)} from camera to verdict")
    if traffic.lost is not None:
        moves.append(
            f"{traffic.lost:,} frame{'' if traffic.lost == 1 else 's'} lost" if traffic.lost else "nothing lost"
        )
    text = ", ".join(moves)
    return f"{initial(text)}."


def unusual(p_value: float, threshold: float, statistic: str, ranked: str = "most often") -> str:
    """Return a p-value in words, such as `as unusual as 1 in 3,000 clean frames (flagged below 1 in 110)`.

    The name of the most unusual `statistic` follows, `ranked` as such, unless it is empty.
    """
    by = f", {ranked} {_BY[statistic]}" if statistic else ""
    return f"as unusual as {rarity(p_value)} clean frames (flagged below {rarity(threshold)}){by}"


def rarity(share: float) -> str:
    """Return a share with two significant digits, such as `1 in 3,000`; from 0.1 on, such as `25 in 100`."""
    if share >= 0.1:
        return f"{100 * share:.0f} in 100"
    return f"1 in {float(f'{1 / max(share, _LEAST_SHARE):.2g}'):,.0f}"


def duration(seconds: float) -> str:
    """Return a latency, such as `40 ms` or `1.3 s`."""
    return (
        f"{seconds:.1f} s" if seconds >= 1 else f"{max(1, round(1000 * seconds, -1 if seconds >= 0.1 else 0)):.0f} ms"
    )


def initial(text: str) -> str:
    """Return the text with a capital first letter, the rest unchanged."""
    return text[:1].upper() + text[1:]


def _agreed(words: str, number: int) -> str:
    return "needs a look" if (words, number) == ("need a look", 1) else words
