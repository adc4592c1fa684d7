"""The paired table {bare, behind the drop} × {clean, worst case}, made from its rows alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lab.experiments.hardening import candidates
from lab.experiments.hardening.paired import BARE, BEHIND, Standing, standing, unpacked
from lab.experiments.hardening.rows import CandidatesRow, PairedRow
from lab.experiments.harness.page import Column, table
from lab.red_team.plan import CLEAN
from lab.statistics import Interval, holm, least_wins, paired_detectable, paired_interval, sign_test, wilson

LEVEL: Final = 0.05
"""Level of the two-sided sign test of a difference."""
POWER: Final = 0.8
LOST: Final = 0.03
"""Share of pictures lost for which the power is also stated: about what 100 pictures without a loss do not exclude."""
PRIMARY: Final = "once"
"""The side that the primary comparison sets against the bare network, in the worst case of all attacks."""


@dataclass(frozen=True)
class Against:
    """The pictures that withstand some attacks, on both sides."""

    attacks: str
    """The set of attacks in words."""
    rows: tuple[PairedRow, ...]

    @property
    def left(self) -> Standing:
        """The pictures that withstand every attack of the set."""
        return standing(self.rows)

    def share(self, side: str) -> Interval:
        """Return the share of these pictures on the side `bare`, `once` or `always`, with its Wilson interval."""
        right = self._right(side)
        return wilson(int(right.sum()), len(right))

    def gain(self, side: str) -> Interval:
        """Return the share behind the drop, `once` or `always`, minus the bare network's, with its paired interval."""
        return paired_interval(self._right(side), self.left.bare)

    def p(self, side: str) -> float:
        """Return the p-value of the two-sided sign test of the difference."""
        wins, losses = self._discordant(side)
        return min(1.0, 2 * sign_test(max(wins, losses), min(wins, losses)))

    def lost(self, side: str) -> float:
        """Return the share of the pictures that only the bare network gets right."""
        return self._discordant(side)[1] / self.left.count

    def detectable(self, side: str, lost: float | None = None) -> float:
        """Return the smallest gain that the test finds with the probability `POWER`.

        `lost` is the share of pictures that only the bare network gets right, None that of these pictures.
        """
        needed = partial(least_wins, alpha=LEVEL / 2)
        return paired_detectable(self.left.count, self.lost(side) if lost is None else lost, needed, POWER)

    def strongest(self, side: str) -> PairedRow | None:
        """Return the attack that leaves the fewest pictures of this side; None without an attack."""
        attacks = [row for row in self.rows if row.attack != CLEAN]
        return min(attacks, key=lambda row: int(_of(standing([row]), side).sum()), default=None)

    def _discordant(self, side: str) -> tuple[int, int]:
        ours, theirs = self._right(side), self.left.bare
        return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())

    def _right(self, side: str) -> NDArray[np.bool_]:
        return _of(self.left, side)


_PLACES: Final = {BARE: "on the bare network", BEHIND: "through the drop"}
_VERSIONS: Final = {BARE: "standard", BEHIND: "for random defences"}
"""The version of AutoAttack by the side on which it is made."""


def kind(row: PairedRow) -> str:
    """Return an attack by its name and, for AutoAttack, its version: the standard one has attacks of its own."""
    return f"{row.attack} ({_VERSIONS[row.made_on]})" if row.attack == "auto-attack" else row.attack


def made(row: PairedRow | None) -> str:
    """Return an attack with the side on which it was made; a dash for None."""
    return "–" if row is None else f"{kind(row)}, made {_PLACES[row.made_on]}"


def _of(left: Standing, side: str) -> NDArray[np.bool_]:
    return {"bare": left.bare, "once": left.once, "always": left.always}[side]


@dataclass(frozen=True)
class Summary:
    """The paired table of one network at one bound."""

    network: str
    eps: float
    submissions: int
    clean: Against
    unaware: Against
    """Attacks made on the bare network."""
    aware: Against | None
    """Attacks made through the drop, with unknown masks; None without a row."""
    worst: Against

    @property
    def lines(self) -> list[Against]:
        """The lines of the table."""
        return [each for each in (self.clean, self.unaware, self.aware, self.worst) if each is not None]

    @property
    def smallest_gain(self) -> float:
        """The smallest gain that the test of the primary comparison finds with the probability `POWER`."""
        return self.worst.detectable(PRIMARY)

    @property
    def one_sided(self) -> dict[str, list[str]]:
        """The attacks that were made on one side alone, by that side."""
        attacks = [row for row in self.worst.rows if row.attack != CLEAN]
        kinds = {side: {kind(row) for row in attacks if row.made_on == side} for side in _PLACES}
        return {BARE: sorted(kinds[BARE] - kinds[BEHIND]), BEHIND: sorted(kinds[BEHIND] - kinds[BARE])}


def summaries(rows: Sequence[PairedRow]) -> list[Summary]:
    """Return a table for each network and bound that has a row without an attack and one with an attack."""
    found = []
    for network, eps in dict.fromkeys((row.network, row.eps) for row in rows):
        own = [row for row in rows if (row.network, row.eps) == (network, eps)]
        clean = tuple(row for row in own if row.attack == CLEAN)
        by_side = {side: tuple(row for row in own if row.made_on == side and row.attack != CLEAN) for side in _PLACES}
        if not clean or not by_side[BARE]:
            continue
        submissions = max(row.submissions for row in own)
        aware = (*clean, *by_side[BEHIND])
        found.append(
            Summary(
                network,
                eps,
                submissions,
                Against("none", clean),
                Against(f"attacks made on the bare network ({len(by_side[BARE])})", (*clean, *by_side[BARE])),
                Against(f"attacks made through the drop ({len(by_side[BEHIND])})", aware) if by_side[BEHIND] else None,
                Against(f"worst case of all attacks ({len(own) - len(clean)})", tuple(own)),
            )
        )
    return found


def strength(eps: float) -> str:
    """Return a bound as a page prints it: `8/255`, or the number."""
    levels = round(eps * 255)
    return f"{levels}/255" if abs(eps * 255 - levels) < 0.01 else f"{eps:g}"


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


Comparison = tuple[Against, str]
"""A line of a table, and the side `once` or `always` that it compares with the bare network."""


def adjusted(found: Sequence[Summary]) -> dict[Comparison, float]:
    """Return p, adjusted by Holm's method, of every comparison of these tables but the primary ones."""
    others = [
        (line, side) for each in found for line in each.lines for side in ("once", "always")
        if (line, side) != (each.worst, PRIMARY)
    ]  # fmt: skip
    return dict(zip(others, holm([line.p(side) for line, side in others]), strict=True))


def _gain(side: str, of_family: Mapping[Comparison, float]) -> Callable[[Against], str]:
    def text(each: Against) -> str:
        p = of_family.get((each, side))
        shown = f"p = {each.p(side):.2g}, primary" if p is None else f"Holm p = {p:.2g}"
        return f"{_difference(each.gain(side))}, {shown}"

    return text


def columns(of_family: Mapping[Comparison, float]) -> tuple[Column[Against], ...]:
    """Return the columns of a table; `of_family` holds p of every comparison but the primary ones."""
    return (
        Column("attacks", lambda each: each.attacks),
        Column("bare", lambda each: _interval(each.share("bare"))),
        Column("behind the drop, shown once", lambda each: _interval(each.share("once"))),
        Column("shown ten times", lambda each: _interval(each.share("always"))),
        Column("once − bare", _gain("once", of_family)),
        Column("ten times − bare", _gain("always", of_family)),
        Column("strongest: bare", lambda each: made(each.strongest("bare"))),
        Column("behind the drop", lambda each: made(each.strongest("always"))),
    )


ROWS: Final[tuple[Column[PairedRow], ...]] = (
    Column("network", lambda row: row.network),
    Column("L∞ ε", lambda row: strength(row.eps)),
    Column("attack", kind),
    Column("made", lambda row: "" if row.attack == CLEAN else _PLACES[row.made_on]),
    Column("n", lambda row: str(row.pictures)),
    Column("bare", lambda row: _interval(Against("", (row,)).share("bare"))),
    Column("behind, once", lambda row: _interval(Against("", (row,)).share("once"))),
    Column("behind, ten times", lambda row: _interval(Against("", (row,)).share("always"))),
    Column("s", lambda row: f"{row.seconds:.1f}"),
)


def share_of(digits: str, count: int) -> Interval:
    """Return the share of `count` pictures whose bit is set, with its Wilson interval."""
    return wilson(int(unpacked(digits, count).sum()), count)


def _showings(name: str) -> Callable[[CandidatesRow], str]:
    return lambda row: _interval(share_of(getattr(row, name), row.pictures))


AGAIN_TEXT: Final = (
    "The attack `candidates` makes a picture away from the class of each picture, and one towards each other class, by "
    f"PGD of {candidates.STEPS} steps of {candidates.STEP:g} ε from one random start, on margins between logits, with "
    f"momentum; through the drop, with {candidates.SAMPLES[BEHIND]} draws a step. The attacker chooses among those by "
    f"{candidates.ESTIMATES} draws of its own. The shares are of pictures that are right at every showing, behind the "
    "drop; a picture that is never right without an attack counts as wrong."
)
AGAIN: Final[tuple[Column[CandidatesRow], ...]] = (
    Column("network", lambda row: row.network),
    Column("L∞ ε", lambda row: strength(row.eps)),
    Column("n", lambda row: str(row.pictures)),
    Column("candidates", lambda row: str(row.candidates)),
    Column("the chosen one, once", _showings("once")),
    Column("10 times", _showings("ten")),
    Column("100 times", _showings("hundred")),
    Column("each candidate once", _showings("each_once")),
    Column("each 10 times", _showings("each_ten")),
    Column("s", lambda row: f"{row.seconds:.1f}"),
)


def paired_page(
    rows: Sequence[PairedRow],
    transferred: Sequence[PairedRow],
    again: Sequence[CandidatesRow],
    missing: Iterable[str],
    command: str,
) -> list[str]:
    """Return the page: a table for each network and bound, the power of its comparison, and all attacks.

    `transferred` are attacks on more pictures, `again` are candidates that were shown again.
    """
    left_out = _listed(missing)
    found = summaries(rows)
    of_family = adjusted(found)
    parts = [
        "# With the drop and without it, on the same pictures",
        f"Made by `{command}`; the measurement is described in `lab/experiments/hardening/paired.py`. CIFAR-10, the "
        "first test pictures, L∞, a quarter of the pixels dropped. Each attack of `lab red-team` is made on one side, "
        "and its pictures are shown to both: once to the bare network, ten times behind the drop. The attacker knows "
        "all but the key. A picture counts if every attack of the line fails on it; *shown ten times*, in all "
        "submissions of each. A picture that the attacked side never gets right without an attack is not attacked. "
        "The standard AutoAttack is APGD, two targeted attacks (APGD-T, FAB-T) and Square; its version for random "
        "defences is APGD with two losses, both without a target.",
        "Intervals are of 95 % (Wilson) and not adjusted; differences have the paired interval of Bonett and Price "
        "(2012) and p of the two-sided sign test. The primary comparison of each network is the worst case, shown "
        f"once. Its p is not adjusted. Any other p is adjusted by Holm's method (1979) for all {len(of_family)} other "
        "comparisons of this page.",
    ]
    for each in found:
        parts += [
            f"## {each.network}, ε = {strength(each.eps)}",
            table(columns(of_family), each.lines),
            *_warning(each),
            f"Of {each.worst.left.count} pictures, the sign test at {LEVEL:.0%} finds a gain of the worst case by "
            f"{each.smallest_gain:.1%} (shown once) with a probability of {POWER:.0%}, if as many pictures are "
            f"lost as here ({each.worst.lost(PRIMARY):.0%}), and by {each.worst.detectable(PRIMARY, LOST):.1%} if "
            f"{LOST:.0%} are.",
        ]
    parts += ["## All attacks", table(ROWS, rows)]
    if transferred:
        parts += ["## On the pictures of the red team's runs", table(ROWS, transferred)]
    if again:
        parts += ["## Shown again, or another candidate", AGAIN_TEXT, table(AGAIN, again)]
    if left_out:
        parts.append(f"Not measured yet: {left_out}.")
    return parts


def _warning(of: Summary) -> list[str]:
    """Return the line that names the attacks of one side alone; none if both sides met the same attacks."""
    alone = [f"{_listed(names)} {_PLACES[side]}" for side, names in of.one_sided.items() if names]
    if not alone:
        return []
    return [
        f"**The two sets of attacks differ.** Made on one side alone: {'; '.join(alone)}. An attack "
        "that is missing on one side favours that side."
    ]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
