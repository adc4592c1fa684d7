"""The gate of a rollout: exact tests on frames that both the live model and the candidate have judged.

The tests look at 16, 32, … pairs, at each number once, and every look uses the level `alpha` / number of looks. By the
union bound a rule errs over all its looks with a probability of `alpha` at most. A rule passes, fails or waits for more
pairs; at the last look, waiting fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal, NamedTuple

from infra.monitor.settings import GateRules
from lab.statistics import clopper_pearson
from schemas.messages.frame import Truth
from schemas.pointillist_pb2 import CANARY, Comparison, Slot

FIRST_LOOK: Final = 16
LONG_WAIT_S: Final = 3600.0
"""Seconds after which a loaded candidate that has judged no frame of its slot gets a remark."""
MOST_WAIT_S: Final = 4 * 86_400.0
"""Seconds within which it must judge one: cameras may rest over a long weekend."""
_FIRST_OF_EACH: Final = 4
"""Pairs of each camera that count in any case."""
_LEAST_SIGNING: Final = 4
"""Cameras whose true classes may replace the agreement. Of fewer, two that lie would be half or more."""
_LEAST_SHARE: Final = 1 / 16

Finding = Literal["passes", "fails", "waits", "not measured"]


class AnswerPair(NamedTuple):
    """The answers to one frame. The candidate has none if `failed`; `truth` is None if it is not known."""

    agrees: bool
    failed: bool
    live_confidence: float
    confidence: float
    live_seconds: float
    seconds: float
    live_right: bool | None
    right: bool | None
    flagged: bool | None
    live_class: int = 0
    class_id: int = 0


def answer_pair(comparison: Comparison) -> AnswerPair | None:
    """Return the pair of a comparison; None if the live model has no answer, which proves nothing."""
    live, candidate = comparison.live, comparison.candidate
    if live.error:
        return None
    truth = Truth.from_wire(comparison.truth)
    true_class = truth.class_id if truth is not None and not truth.sticker and not truth.attacked else None
    failed = bool(candidate.error)
    right = not failed and candidate.class_id == true_class
    return AnswerPair(
        not failed and live.class_id == candidate.class_id,
        failed,
        live.confidence,
        0.0 if failed else candidate.confidence,
        live.seconds,
        candidate.seconds,
        None if true_class is None else live.class_id == true_class,
        None if true_class is None else right,
        candidate.flagged if candidate.checked else None,
        live.class_id,
        candidate.class_id,
    )


@dataclass(frozen=True)
class RuleResult:
    """The result of one rule: the measured value, its bounds, the limit, and the finding."""

    name: str
    finding: Finding
    value: float | None
    low: float | None
    high: float | None
    limit: float
    count: int
    """Number of pairs that the value is about."""
    reason: str = ""
    """The cause of a failure and its remedy, if the figures do not show them."""


@dataclass(frozen=True)
class Report:
    """The result of the gate on one slot."""

    pairs: int
    looked: int
    """Pairs of the last look; 0 before the first."""
    rules: tuple[RuleResult, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the rules that fail."""
        return tuple(rule.name for rule in self.rules if rule.finding == "fails")

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return bool(self.looked) and all(rule.finding in ("passes", "not measured") for rule in self.rules)

    def as_json(self) -> str:
        """Return the report for the record of the rollout."""
        rules = [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(rule).items() if (k, v) != ("reason", "")}
            for rule in self.rules
        ]
        return json.dumps({"pairs": self.pairs, "looked": self.looked, "rules": rules})


def look_sizes(rules: GateRules) -> tuple[int, ...]:
    """Return the numbers of pairs at which the gate looks."""
    count = int(math.log2(max(rules.most_pairs, FIRST_LOOK) / FIRST_LOOK)) + 1
    return tuple(FIRST_LOOK << index for index in range(count))


def last_look_size(pairs: int, rules: GateRules) -> int:
    """Return the last number of pairs at which the gate has looked; 0 before the first."""
    return max((number for number in look_sizes(rules) if number <= pairs), default=0)


def is_counted(own: int, all_cameras: int, cameras: int) -> bool:
    """Return whether one more pair of a camera counts, which has `own` of the pairs of `all_cameras`.

    A camera gives at most twice its even share, or 1/16 of the pairs if that is more: two thirds among three cameras.
    Among two there is no bound: either may leave, and the other still decides. The first four pairs of each always
    count. Half of the cameras may leave, and the others still reach each number.
    """
    return own < _FIRST_OF_EACH or own <= all_cameras * max(2 / cameras, _LEAST_SHARE)


def judge(pairs: Sequence[AnswerPair], rules: GateRules, cameras: int) -> Report:
    """Return the report on these pairs, in the order of their arrival; `cameras` is the number of their cameras."""
    numbers = look_sizes(rules)
    looked = last_look_size(len(pairs), rules)
    if not looked:
        return Report(len(pairs), 0, ())
    alpha, seen = rules.alpha / len(numbers), pairs[:looked]
    found = [test(seen, rules, alpha) for test in _TESTS]
    by_name = {rule.name: rule for rule in found}
    known = cameras >= _LEAST_SIGNING and by_name["accuracy"].count >= 0.9 * looked
    if known and by_name["agreement"].finding != "passes":
        # A better model contradicts the live one where that errs: the truth decides. A few cameras, which sign it, do
        # not let a candidate pass that disagrees.
        found[0] = replace(found[0], finding="not measured")
    if looked < rules.least_pairs:
        found = [replace(rule, finding="waits") if rule.finding == "passes" else rule for rule in found]
    elif looked == numbers[-1]:
        found = [replace(rule, finding="fails") if rule.finding == "waits" else rule for rule in found]
    return Report(len(pairs), looked, tuple(found))


def without_class_rules(report: Report, finding: Finding) -> Report:
    """Return the report of a candidate with other classes than the live model's: class numbers cannot be compared."""
    compared = ("agreement", "accuracy")
    rules = tuple(replace(rule, finding=finding) if rule.name in compared else rule for rule in report.rules)
    return replace(report, rules=rules)


def _agreement(pairs: Sequence[AnswerPair], rules: GateRules, alpha: float) -> RuleResult:
    same, limit = sum(pair.agrees for pair in pairs), rules.least_agreement
    low, high = clopper_pearson(same, len(pairs), alpha)
    finding: Finding = "passes" if low >= limit else "fails" if high < limit else "waits"
    return RuleResult("agreement", finding, same / len(pairs), low, high, limit, len(pairs))


def _errors(pairs: Sequence[AnswerPair], rules: GateRules, alpha: float) -> RuleResult:
    failed, limit = sum(pair.failed for pair in pairs), rules.most_errors
    low, high = clopper_pearson(failed, len(pairs), alpha)
    finding: Finding = "passes" if high <= limit else "fails" if low > limit else "waits"
    return RuleResult("errors", finding, failed / len(pairs), low, high, limit, len(pairs))


def _confidence(pairs: Sequence[AnswerPair], rules: GateRules, alpha: float) -> RuleResult:
    """Compare mean confidences; the bounds are Hoeffding's (1963) for differences from -1 to 1."""
    differences = [pair.confidence - pair.live_confidence for pair in pairs]
    mean, half = sum(differences) / len(pairs), math.sqrt(2 * math.log(1 / alpha) / len(pairs))
    low, high, limit = mean - half, mean + half, -rules.most_confidence_lost
    finding: Finding = "passes" if low >= limit else "fails" if high < limit else "waits"
    return RuleResult("confidence", finding, mean, low, high, limit, len(pairs))


def _speed(pairs: Sequence[AnswerPair], rules: GateRules, alpha: float) -> RuleResult:
    """Test whether the median ratio of the times on the same frame, each model alone, is below the limit: sign test."""
    timed = sorted(pair.seconds / pair.live_seconds for pair in pairs if pair.seconds > 0 and pair.live_seconds > 0)
    limit = rules.most_times_slower
    if not timed:
        return RuleResult("speed", "waits", None, None, None, limit, 0)
    low, high = clopper_pearson(sum(ratio > limit for ratio in timed), len(timed), alpha)
    finding: Finding = "passes" if high < 0.5 else "fails" if low > 0.5 else "waits"
    return RuleResult("speed", finding, timed[len(timed) // 2], low, high, limit, len(timed))


def _strip(pairs: Sequence[AnswerPair], rules: GateRules, alpha: float) -> RuleResult:
    """Test the share of probes that STRIP flags. Probes are few: the rule can end a rollout, and never holds one up."""
    flags = [pair.flagged for pair in pairs if pair.flagged is not None]
    limit = rules.most_flagged
    if not flags:
        return RuleResult("strip", "not measured", None, None, None, limit, 0)
    low, high = clopper_pearson(sum(flags), len(flags), alpha)
    return RuleResult(
        "strip", "fails" if low > limit else "passes", sum(flags) / len(flags), low, high, limit, len(flags)
    )


def _accuracy(pairs: Sequence[AnswerPair], rules: GateRules, alpha: float) -> RuleResult:
    """Compare accuracies on the frames with a true class.

    Cameras sign the true class. It counts only if more than half of the frames have it, so no single camera decides.
    """
    known = [(bool(pair.live_right), bool(pair.right)) for pair in pairs if pair.right is not None]
    if 2 * len(known) <= len(pairs):
        return RuleResult("accuracy", "not measured", None, None, None, -rules.most_accuracy_lost, len(known))
    return _paired_accuracy("accuracy", known, rules, alpha)


def _paired_accuracy(name: str, known: Sequence[tuple[bool, bool]], rules: GateRules, alpha: float) -> RuleResult:
    """Compare accuracies by the frames on which one model alone is right; each share has Clopper–Pearson bounds.

    `known` has whether the live model and the candidate are right on a frame.
    """
    limit = -rules.most_accuracy_lost
    lost = sum(live and not right for live, right in known)
    won = sum(not live and right for live, right in known)
    (low_won, high_won), (low_lost, high_lost) = (clopper_pearson(each, len(known), alpha / 2) for each in (won, lost))
    low, high = low_won - high_lost, high_won - low_lost
    finding: Finding = "passes" if low >= limit else "fails" if high < limit else "waits"
    return RuleResult(name, finding, (won - lost) / len(known), low, high, limit, len(known))


def labels_rule(labelled: Sequence[tuple[AnswerPair, int]], rules: GateRules) -> RuleResult:
    """Compare accuracies on frames that people have labelled, with the class of each.

    The looks are at 16, 32, … labelled frames. These are few: the rule can end a rollout, and never holds one up.
    """
    numbers = look_sizes(rules)
    seen = labelled[: last_look_size(len(labelled), rules)]
    if not seen:
        return RuleResult("labels", "not measured", None, None, None, -rules.most_accuracy_lost, len(labelled))
    known = [(pair.live_class == label, not pair.failed and pair.class_id == label) for pair, label in seen]
    found = _paired_accuracy("labels", known, rules, rules.alpha / len(numbers))
    return found if found.finding == "fails" else replace(found, finding="passes")


def frames_rule(pairs: int, waited_s: float, slot: Slot) -> RuleResult:
    """Return the rule that at least one frame is compared within `MOST_WAIT_S` after the candidate is loaded."""
    if pairs or waited_s < LONG_WAIT_S:
        return RuleResult("frames", "passes" if pairs else "waits", pairs, None, None, 1, pairs)
    drawn = "no camera was drawn, or none sent a frame; give a larger --cameras"
    if slot != CANARY:
        drawn = "no frame was drawn, or no camera sent one; give a larger --frames"
    finding: Finding = "fails" if waited_s >= MOST_WAIT_S else "waits"
    return RuleResult("frames", finding, 0, None, None, 1, 0, f"no frame was compared: {drawn}")


_TESTS: Final[tuple[Callable[[Sequence[AnswerPair], GateRules, float], RuleResult], ...]] = (
    _agreement, _errors, _confidence, _speed, _strip, _accuracy,
)  # fmt: skip
