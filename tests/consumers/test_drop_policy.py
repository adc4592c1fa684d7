"""The rule of a drop policy: bounds, minimum times, monotony, and a fixed point under constant inputs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.console.data.drop_policy import STEPS, DropInputs, DropPolicy, DropState, decide

POLICY = DropPolicy("lab/*", 0.25, 0.5, 0.5, 0.6, 30.0, 120.0, 600.0, "anna", 0)
CALM = DropInputs(0, evidence=0.0, accuracy=0.9, waiting_s=0.0)
REST = DropState(16)

shares = st.floats(0, 1)
policies = st.builds(
    lambda bounds, evidence, accuracy, waiting_s, least_s, calm_s: POLICY._replace(
        lowest=min(bounds) / 64, highest=max(bounds) / 64, evidence=evidence, accuracy=accuracy, waiting_s=waiting_s,
        least_s=least_s, calm_s=calm_s,
    ),
    st.lists(st.integers(0, 56), min_size=2, max_size=2, unique=True),
    st.none() | st.floats(0.05, 1),
    st.none() | st.floats(0.05, 0.95),
    st.none() | st.floats(1, 600),
    st.floats(30, 600),
    st.floats(60, 1200),
)  # fmt: skip
values = st.builds(
    DropInputs,
    st.just(0),
    shares,
    st.none() | shares,
    st.none() | st.floats(0, 1200),
    st.integers(0, 3),
)
gaps_ms = st.integers(0, 400_000)
histories = st.lists(st.tuples(gaps_ms, values), min_size=1, max_size=40)


def run(policy: DropPolicy, state: DropState, steps: list[tuple[int, DropInputs]]) -> list[tuple[int, int]]:
    """Apply a policy to a history of inputs. Return the times and ratios."""
    now_ms, found = 0, [(0, state.dropped)]
    for gap_ms, inputs in steps:
        now_ms += gap_ms
        state = decide(policy, state, inputs._replace(now_ms=now_ms))
        found.append((now_ms, state.dropped))
    return found


@given(policies, st.integers(0, 56), histories)
def test_the_ratio_stays_within_the_bounds(
    policy: DropPolicy, begins: int, history: list[tuple[int, DropInputs]]
) -> None:
    lowest, highest = policy.bounds
    assert all(lowest <= dropped <= highest for _, dropped in run(policy, DropState(begins), history)[1:])


@given(policies, shares, histories)
def test_changes_are_at_least_least_s_apart_and_steps_down_at_least_calm_s(
    policy: DropPolicy, begins: float, history: list[tuple[int, DropInputs]]
) -> None:
    lowest, highest = policy.bounds
    state = DropState(round(lowest + begins * (highest - lowest)))
    found = run(policy, state, history)
    changed = [(at_ms, after - before) for (_, before), (at_ms, after) in pairwise(found) if after != before]
    for (one_ms, _), (other_ms, _) in pairwise(changed):
        assert other_ms - one_ms >= 1000 * policy.least_s
    falls = [at_ms for at_ms, difference in changed if difference < 0]
    for one_ms, other_ms in pairwise(falls):
        assert other_ms - one_ms >= 1000 * policy.calm_s
    assert all(at_ms >= 1000 * policy.calm_s for at_ms in falls)


states = st.builds(
    DropState, st.integers(0, 56), st.none() | st.integers(0, 10**6), st.none() | st.integers(0, 10**6), st.just("")
)


@given(policies, states, st.integers(10**6, 3 * 10**6), values, values)
def test_more_evidence_less_accuracy_or_a_slower_uplink_never_lowers_the_ratio(
    policy: DropPolicy, state: DropState, now_ms: int, one: DropInputs, other: DropInputs
) -> None:
    accuracies = [each for each in (one.accuracy, other.accuracy) if each is not None]
    waits = [each for each in (one.waiting_s, other.waiting_s) if each is not None]
    worse = DropInputs(
        now_ms,
        max(one.evidence, other.evidence),
        min(accuracies, default=None),
        max(waits, default=None),
        max(one.shed, other.shed),
    )
    assert decide(policy, state, worse).dropped >= decide(policy, state, one._replace(now_ms=now_ms)).dropped


@given(policies, shares, values, st.integers(10_000, 400_000))
def test_constant_inputs_lead_to_a_constant_ratio(
    policy: DropPolicy, begins: float, inputs: DropInputs, gap_ms: int
) -> None:
    lowest, highest = policy.bounds
    state = DropState(round(lowest + begins * (highest - lowest)))
    rounds = (STEPS + 1) * (2 + int(1000 * (policy.calm_s + policy.least_s) / gap_ms))
    ratios = [dropped for _, dropped in run(policy, state, [(gap_ms, inputs)] * (rounds + 20))]
    assert ratios in (sorted(ratios), sorted(ratios, reverse=True)), "one direction"
    assert len(set(ratios[rounds:])) == 1


@pytest.mark.parametrize(
    ("inputs", "dropped", "reason"),
    [
        (CALM._replace(evidence=0.5), 32, "evidence of a trigger 0.50, from 0.5 on"),
        (CALM._replace(evidence=0.49), 16, ""),
        (CALM._replace(accuracy=0.59), 32, "accuracy under attack 0.59, below 0.6"),
        (CALM._replace(accuracy=None), 16, ""),
        (CALM._replace(waiting_s=30.0), 20, "30 s of frames wait in the spool, from 30 s on"),
        (CALM._replace(shed=7), 20, "7 frames shed by the full spool"),
        (CALM, 16, ""),
    ],
)
def test_a_threat_raises_the_ratio_to_the_bound_and_a_slow_uplink_by_a_step(
    inputs: DropInputs, dropped: int, reason: str
) -> None:
    state = decide(POLICY, REST, inputs)
    assert (state.dropped, state.reason) == (dropped, reason)


def test_the_ratio_falls_by_steps_after_the_calm_time_and_not_between_the_thresholds() -> None:
    state = decide(POLICY, REST, CALM._replace(evidence=1.0))
    between = CALM._replace(evidence=0.3)
    for inputs, at_s, dropped in (
        (between, 5_000, 32), (CALM, 5_100, 32), (CALM, 5_699, 32), (CALM, 5_700, 28), (CALM, 6_299, 28),
        (between, 6_299.5, 28), (CALM, 6_400, 28), (CALM, 6_999, 28), (CALM, 7_000, 24), (CALM, 7_600, 20),
        (CALM, 8_200, 16), (CALM, 9_000, 16),
    ):  # fmt: skip
        state = decide(POLICY, state, inputs._replace(now_ms=int(1000 * at_s)))
        assert state.dropped == dropped, at_s
