from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.sightings.rule import RuleFrame, Sighting, SightingRule, advance, confidence_of, lapse
from consumers.sightings.rules_table import new_rule
from schemas.errors import ConfigError

RULE = SightingRule("north/*", "vehicle", 3, 0.5, 10.0, 60.0, "root", 0)

_FRAMES = st.lists(st.tuples(st.integers(0, 8_000), st.booleans(), st.sampled_from([1] * 19 + [2])), max_size=120)
_RULES = st.builds(
    lambda frames, absent_s, cooldown_s: RULE._replace(frames=frames, absent_s=absent_s, cooldown_s=cooldown_s),
    st.integers(2, 5), st.integers(5, 20).map(float), st.integers(10, 90).map(float),
)  # fmt: skip


def frames_of(frames: list[tuple[int, bool, int]]) -> list[RuleFrame]:
    """Return frames, given as their distances in milliseconds, whether they agree, and their boots."""
    made, at_ms = [], 1_000_000
    for seq, (gap_ms, agrees, boot) in enumerate(frames):
        at_ms += gap_ms
        made.append(RuleFrame(at_ms, boot, seq, 0.9 if agrees else None))
    return made


def run(rule: SightingRule, frames: list[RuleFrame]) -> list[int]:
    """Return the positions of the frames that raise an alert."""
    state, raised = Sighting(), []
    for at, frame in enumerate(frames):
        after = advance(rule, state, frame)
        if after.raised_ms != state.raised_ms:
            raised.append(at)
        state = after
    return raised


def oracle(rule: SightingRule, frames: list[RuleFrame]) -> list[int]:
    """Return the same positions by the definition of the rule, from the whole past of each frame, without a state."""
    raised: list[int] = []
    for at, frame in enumerate(frames):
        if frame.confidence is None:
            continue
        seen = [k for k in range(at) if frames[k].confidence is not None]
        # The frames since the last absence, and since the last change of the boot.
        begin = 0
        for k in range(at + 1):
            past = [each for each in seen if each < k]
            if past and frames[k].at_ms - frames[past[-1]].at_ms >= 1000 * rule.absent_s:
                begin = k
        lasts = bool(raised) and raised[-1] >= begin
        of_boot = max((k + 1 for k in range(at) if frames[k].boot != frame.boot), default=0)
        newest = frames[max(begin, of_boot, at + 1 - (2 * rule.frames - 1)) : at + 1]
        agreeing = sum(each.confidence is not None for each in newest)
        rested = not raised or frame.at_ms - frames[raised[-1]].at_ms >= 1000 * rule.cooldown_s
        if not lasts and rested and agreeing >= rule.frames:
            raised.append(at)
    return raised


@given(_RULES, _FRAMES)
def test_the_rule_agrees_with_an_independent_oracle(rule: SightingRule, frames: list[tuple[int, bool, int]]) -> None:
    assert run(rule, frames_of(frames)) == oracle(rule, frames_of(frames))


@given(_RULES, _FRAMES)
def test_alerts_are_at_least_a_cool_down_apart_and_have_enough_frames_in_agreement(
    rule: SightingRule, frames: list[tuple[int, bool, int]]
) -> None:
    made = frames_of(frames)
    raised = run(rule, made)
    for before, after in pairwise(raised):
        assert made[after].at_ms - made[before].at_ms >= 1000 * rule.cooldown_s
    for at in raised:
        newest = made[max(0, at + 1 - rule.window_frames) : at + 1]
        assert sum(each.confidence is not None for each in newest) >= rule.frames


def test_a_flicker_raises_no_alert_and_three_of_five_frames_raise_one() -> None:
    flicker = frames_of([(1000, n % 4 == 0, 1) for n in range(200)])
    assert run(RULE, flicker) == []
    assert run(RULE, frames_of([(1000, agrees, 1) for agrees in (True, False, True, False, True)])) == [4]


def test_a_frame_outside_the_window_does_not_count() -> None:
    made = frames_of([(1000, agrees, 1) for agrees in (True, False, False, True)])
    assert run(RULE._replace(frames=2), made) == []
    assert run(RULE._replace(frames=2), made[1:2] + made[3:] + frames_of([(5000, True, 1)])) == [2]


def test_frames_before_and_after_an_absence_do_not_count_together() -> None:
    assert run(RULE, frames_of([(1000, True, 1), (1000, True, 1), (10_000, True, 1), (1000, True, 1)])) == []


def test_a_class_that_stays_is_one_sighting_and_its_return_another() -> None:
    stays = [(1000, True, 1)] * 300
    assert run(RULE, frames_of(stays)) == [2]
    assert run(RULE, frames_of([*stays, *[(1000, False, 1)] * 10, *stays])) == [2, 312]


def test_a_busy_street_raises_one_alert_per_cool_down() -> None:
    passing = [*[(1000, True, 1)] * 5, *[(1000, False, 1)] * 15]  # a car every 20 s for an hour
    raised = run(RULE, frames_of(passing * 180))
    assert len(raised) == 60


def test_frames_of_different_boots_do_not_count_together() -> None:
    assert run(RULE, frames_of([(1000, True, 1 + n % 2) for n in range(50)])) == []


def test_a_sighting_ends_after_the_absence_with_or_without_frames() -> None:
    state = Sighting()
    for frame in frames_of([(1000, True, 1)] * 3):
        state = advance(RULE, state, frame)
    assert state.lasts
    assert lapse(RULE, state, state.seen_ms + 9_999).lasts
    assert not lapse(RULE, state, state.seen_ms + 10_000).lasts
    assert not advance(RULE, state, RuleFrame(state.seen_ms + 10_000, 1, 9, None)).lasts


@pytest.mark.parametrize(
    ("name", "group", "confidence", "group_confidence", "found"),
    [
        ("cab", "vehicle", 0.45, 0.89, 0.89),
        ("vehicle", "vehicle", 0.6, 0.6, 0.6),
        ("vehicle", "", 0.5, 0.0, 0.5),
        ("cab", "vehicle", 0.6, 0.49, None),
        ("vehicle", "thing", 0.49, 0.9, None),
        ("unsure", "vehicle", 0.9, 0.9, None),
        ("dog", "animal", 0.9, 0.9, None),
        ("motor vehicle", "", 0.9, 0.9, None),
    ],
)
def test_a_verdict_agrees_if_its_class_or_group_is_the_wanted_one_with_enough_confidence(
    name: str, group: str, confidence: float, group_confidence: float, found: float | None
) -> None:
    assert confidence_of(RULE, name, group, confidence, group_confidence) == found


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"cameras": "*"}, "cameras"),
        ({"wanted": " "}, "wanted"),
        ({"wanted": "unsure"}, "wanted"),
        ({"wanted": "a\nb"}, "wanted"),
        ({"frames": 1}, "frames"),
        ({"frames": 2.5}, "frames"),
        ({"confidence": "nan"}, "confidence"),
        ({"absent_s": True}, "absent_s"),
        ({"cooldown_s": 0}, "cooldown_s"),
    ],
)
def test_an_invalid_rule_is_rejected_in_one_line_with_its_field(changed: dict[str, object], field: str) -> None:
    fields = {"cameras": "north/gate-*", "wanted": "vehicle"}
    assert new_rule(fields, "root", 5)[:6] == ("north/gate-*", "vehicle", 3, 0.5, 60.0, 900.0)
    with pytest.raises(ConfigError) as caught:
        new_rule(fields | changed, "root", 5)
    assert str(caught.value).startswith(f"{field}: expected")
    assert "\n" not in str(caught.value)
