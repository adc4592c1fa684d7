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


def looks(frames: list[tuple[int, bool, int]]) -> list[RuleFrame]:
    """Frames from their distances in milliseconds, whether they agree, and their boots."""
    made, at_ms = [], 1_000_000
    for seq, (gap_ms, agrees, boot) in enumerate(frames):
        at_ms += gap_ms
        made.append(RuleFrame(at_ms, boot, seq, 0.9 if agrees else None))
    return made


def run(rule: SightingRule, frames: list[RuleFrame]) -> list[int]:
    """The positions of the frames that raise an alert."""
    state, raised = Sighting(), []
    for at, look in enumerate(frames):
        after = advance(rule, state, look)
        if after.raised_ms != state.raised_ms:
            raised.append(at)
        state = after
    return raised


def oracle(rule: SightingRule, frames: list[RuleFrame]) -> list[int]:
    """The same by the words of the rule, from the whole past of each frame and without a state of its own."""
    raised: list[int] = []
    for at, look in enumerate(frames):
        if look.confidence is None:
            continue
        seen = [k for k in range(at) if frames[k].confidence is not None]
        # The frames since the last absence, and since the last change of the boot.
        begin = 0
        for k in range(at + 1):
            past = [each for each in seen if each < k]
            if past and frames[k].at_ms - frames[past[-1]].at_ms >= 1000 * rule.absent_s:
                begin = k
        lasts = bool(raised) and raised[-1] >= begin
        of_boot = max((k + 1 for k in range(at) if frames[k].boot != look.boot), default=0)
        newest = frames[max(begin, of_boot, at + 1 - (2 * rule.frames - 1)) : at + 1]
        agreeing = sum(each.confidence is not None for each in newest)
        rested = not raised or look.at_ms - frames[raised[-1]].at_ms >= 1000 * rule.cooldown_s
        if not lasts and rested and agreeing >= rule.frames:
            raised.append(at)
    return raised


@given(_RULES, _FRAMES)
def test_the_rule_raises_what_its_words_say(rule: SightingRule, frames: list[tuple[int, bool, int]]) -> None:
    assert run(rule, looks(frames)) == oracle(rule, looks(frames))


@given(_RULES, _FRAMES)
def test_alerts_are_a_cool_down_apart_and_each_has_frames_in_agreement(
    rule: SightingRule, frames: list[tuple[int, bool, int]]
) -> None:
    made = looks(frames)
    raised = run(rule, made)
    for before, after in pairwise(raised):
        assert made[after].at_ms - made[before].at_ms >= 1000 * rule.cooldown_s
    for at in raised:
        newest = made[max(0, at + 1 - rule.window_frames) : at + 1]
        assert sum(each.confidence is not None for each in newest) >= rule.frames


def test_a_flicker_raises_nothing_and_three_of_five_frames_do() -> None:
    flicker = looks([(1000, n % 4 == 0, 1) for n in range(200)])
    assert run(RULE, flicker) == []
    assert run(RULE, looks([(1000, agrees, 1) for agrees in (True, False, True, False, True)])) == [4]


def test_a_frame_before_the_newest_does_not_agree_any_more() -> None:
    made = looks([(1000, agrees, 1) for agrees in (True, False, False, True)])
    assert run(RULE._replace(frames=2), made) == []
    assert run(RULE._replace(frames=2), made[1:2] + made[3:] + looks([(5000, True, 1)])) == [2]


def test_frames_before_an_absence_do_not_agree_with_those_after_it() -> None:
    assert run(RULE, looks([(1000, True, 1), (1000, True, 1), (10_000, True, 1), (1000, True, 1)])) == []


def test_a_class_that_stays_is_one_sighting_and_one_that_returns_another() -> None:
    stays = [(1000, True, 1)] * 300
    assert run(RULE, looks(stays)) == [2]
    assert run(RULE, looks([*stays, *[(1000, False, 1)] * 10, *stays])) == [2, 312]


def test_a_busy_street_raises_one_alert_in_a_cool_down() -> None:
    passing = [*[(1000, True, 1)] * 5, *[(1000, False, 1)] * 15]  # a car every 20 s for an hour
    raised = run(RULE, looks(passing * 180))
    assert len(raised) == 60


def test_frames_in_agreement_come_from_one_boot() -> None:
    assert run(RULE, looks([(1000, True, 1 + n % 2) for n in range(50)])) == []


def test_a_sighting_ends_after_the_absence_whether_frames_come_or_not() -> None:
    state = Sighting()
    for look in looks([(1000, True, 1)] * 3):
        state = advance(RULE, state, look)
    assert state.lasts
    assert lapse(RULE, state, state.seen_ms + 9_999).lasts
    assert not lapse(RULE, state, state.seen_ms + 10_000).lasts
    assert not advance(RULE, state, RuleFrame(state.seen_ms + 10_000, 1, 9, None)).lasts


@pytest.mark.parametrize(
    ("name", "group", "confidence", "agrees"),
    [
        ("cab", "vehicle", 0.6, True),
        ("vehicle", "vehicle", 0.6, True),
        ("vehicle", "", 0.5, True),
        ("cab", "vehicle", 0.49, False),
        ("unsure", "vehicle", 0.9, False),
        ("dog", "animal", 0.9, False),
        ("motor vehicle", "", 0.9, False),
    ],
)
def test_a_verdict_agrees_if_its_certain_class_or_group_is_the_wanted_one(
    name: str, group: str, confidence: float, agrees: bool
) -> None:
    assert confidence_of(RULE, name, group, confidence) == (confidence if agrees else None)


@pytest.mark.parametrize(
    ("changed", "named"),
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
        ({"colour": 1}, "rule"),
    ],
)
def test_a_wrong_rule_is_refused_in_one_line_that_names_the_field(changed: dict[str, object], named: str) -> None:
    fields = {"cameras": "north/gate-*", "wanted": "vehicle"}
    assert new_rule(fields, "root", 5)[:6] == ("north/gate-*", "vehicle", 3, 0.5, 60.0, 900.0)
    with pytest.raises(ConfigError) as caught:
        new_rule(fields | changed, "root", 5)
    assert str(caught.value).startswith(f"{named}: expected")
    assert "\n" not in str(caught.value)
