"""STRIP in rounds, and the statistics other than the mean entropy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from processors.stages.strip import JOINT_SHARE, Round, Statistic, log_odds_bits, spread_bits, strip
from schemas.errors import StageError

NEVER = Round(2, math.inf)


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights() -> Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def logits(batch: Tensor) -> Tensor:
    """Return the logits of a linear network in which a first pixel of 5 or more, the trigger, forces class 0."""
    found = batch.flatten(1) @ weights()
    found[:, 0] += 100 * (batch[:, 0, 0, 0] >= 5)
    return found


def frames_with_a_trigger() -> Tensor:
    """Return eight frames, of which the last two carry the trigger."""
    frames = pictures(8, 0)
    frames[6:, 0, 0, 0] = 5
    return frames


def probabilities(frames: Tensor, overlays: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    sums = (frames[:, None] + overlays[None]).flatten(0, 1)
    found = logits(sums).softmax(1).view(len(frames), len(overlays), -1).numpy()
    return np.asarray(found, np.float64)


def test_the_mixture_is_the_entropy_of_the_mean_distribution() -> None:
    frames, overlays = pictures(3, 1), pictures(6, 2)
    found = strip(frames, overlays, logits, threshold_bits=0.0, statistic="mixture").entropy_bits
    expected = entropy(probabilities(frames, overlays).mean(1), base=2, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_clamped_sum_stays_in_the_range_of_pictures() -> None:
    seen: list[Tensor] = []

    def record(batch: Tensor) -> Tensor:
        seen.append(batch.clone())
        return torch.zeros(len(batch), 4)

    ones = torch.ones(1, 1, 2, 2)
    strip(ones, ones, record, threshold_bits=0.0, clamped=True)
    assert torch.equal(seen[0], ones)


@pytest.mark.parametrize("statistic", ["mean", "mixture", "odds"])
def test_without_an_accepted_frame_sequential_strip_equals_plain_strip(statistic: str) -> None:
    frames, overlays = frames_with_a_trigger(), pictures(10, 2)
    usual = torch.from_numpy(probabilities(frames[:6], overlays).mean(1)).amax(0) if statistic == "odds" else None
    usual = None if usual is None else log_odds_bits(usual[None])[0]
    plain, sequential = (
        strip(frames, overlays, logits, threshold_bits=0.1, rounds=rounds, statistic=statistic, usual=usual)  # type: ignore[arg-type]
        for rounds in ((), (NEVER, Round(5, math.inf)))
    )
    torch.testing.assert_close(sequential.entropy_bits, plain.entropy_bits)
    assert sequential.flagged.tolist() == plain.flagged.tolist() == [False] * 6 + [True] * 2
    assert sequential.passes.tolist() == [10] * 8


def counted(sizes: list[int]) -> object:
    def run(batch: Tensor) -> Tensor:
        sizes.append(len(batch))
        return logits(batch)

    return run


def test_a_frame_that_reaches_the_limit_of_a_round_stops_and_the_others_continue() -> None:
    frames, overlays = frames_with_a_trigger(), pictures(10, 2)
    p = probabilities(frames, overlays)
    after_two = entropy(p[:, :2].mean(1), base=2, axis=1)
    limit = float(np.sort(after_two)[5])  # three frames reach it
    sizes: list[int] = []
    found = strip(
        frames,
        overlays,
        counted(sizes),  # type: ignore[arg-type]
        threshold_bits=0.1,
        rounds=[Round(2, limit)],
        statistic="mixture",
    )
    early = after_two >= limit
    assert sizes == [16, 5 * 8]
    assert found.passes.tolist() == np.where(early, 2, 10).tolist()
    np.testing.assert_allclose(found.entropy_bits[early], after_two[early], atol=1e-12)
    np.testing.assert_allclose(found.entropy_bits[~early], entropy(p[~early].mean(1), base=2, axis=1), atol=1e-12)


@pytest.mark.parametrize("rounds", [[Round(1, 0.0)], [Round(1, 5.0), Round(2, 0.0)]])
def test_once_all_frames_are_accepted_no_further_overlay_is_used(rounds: Sequence[Round]) -> None:
    sizes: list[int] = []
    found = strip(
        pictures(4, 0),
        pictures(9, 2),
        counted(sizes),  # type: ignore[arg-type]
        threshold_bits=9.0,
        rounds=rounds,
    )
    assert sum(sizes) == 4 * rounds[-1].passes
    # A frame is flagged only after all overlays, even if the threshold is high.
    assert not found.flagged.any()


def test_rounds_beyond_the_number_of_overlays_are_ignored() -> None:
    frames, overlays = pictures(3, 0), pictures(4, 2)
    found = strip(frames, overlays, logits, threshold_bits=9.0, rounds=[Round(4, 0.0), Round(8, 0.0)])
    assert found.passes.tolist() == [4] * 3
    assert found.flagged.all()


def test_a_frame_of_nan_is_neither_accepted_nor_flagged() -> None:
    frames = pictures(2, 0)
    frames[0] = torch.nan
    found = strip(frames, pictures(4, 2), logits, threshold_bits=9.0, rounds=[Round(2, 0.0)])
    assert found.passes.tolist() == [4, 2]
    assert found.entropy_bits.isnan().tolist() == [True, False]
    assert not found.flagged.any()


def test_odds_detect_a_class_that_the_overlays_do_not_favour() -> None:
    # The overlays favour the first class. A frame that favours it no more than usual is not suspect. A frame that gives
    # some of the share to a rare class is suspect, even though its entropy is higher.
    mixtures = torch.tensor([[0.9, 0.09, 0.01], [0.8, 0.09, 0.11]])
    usual = log_odds_bits(torch.tensor([[0.92, 0.12, 0.02]]))[0]
    clean, suspect = spread_bits(mixtures, "odds", usual).tolist()
    expected = max(math.log2(0.11 / 0.89) - math.log2(0.02 / 0.98), math.log2(0.8 / 0.2) - math.log2(0.92 / 0.08))
    assert suspect == pytest.approx(2**-expected, rel=1e-5)
    assert suspect < 1 < clean
    entropies = spread_bits(mixtures, "mixture").tolist()
    assert entropies[0] < entropies[1]


def test_odds_are_bounded_by_a_probability_of_one_in_ten_thousand() -> None:
    bound = math.log2(0.9999 / 0.0001)
    found = log_odds_bits(torch.tensor([[0.0, 1.0, 0.5, 0.001]], dtype=torch.float64))[0]
    assert found.tolist() == pytest.approx([-bound, bound, 0.0, math.log2(0.001 / 0.999)])


def test_odds_need_the_usual_odds_of_every_class() -> None:
    for usual in (None, torch.zeros(2)):
        with pytest.raises(StageError, match="3 classes"):
            spread_bits(torch.full((1, 3), 1 / 3), "odds", usual)


def test_frames_are_accepted_by_the_joint_statistic_but_never_below_the_threshold() -> None:
    frames, overlays = pictures(40, 0), 3 * pictures(10, 2)
    mean = strip(frames, overlays[:2], logits, threshold_bits=0.0).entropy_bits
    mixture = strip(frames, overlays[:2], logits, threshold_bits=0.0, statistic="mixture").entropy_bits
    joint = mean + JOINT_SHARE * mixture
    limit, threshold = joint.median().item(), mean.quantile(0.75).item()
    for threshold_bits in (0.0, threshold):
        rounds = [Round(2, limit)]
        found = strip(frames, overlays, logits, threshold_bits=threshold_bits, rounds=rounds, accept_by="joint")
        expected = (joint >= limit) & (mean >= threshold_bits)
        assert torch.equal(found.passes == 2, expected)
        torch.testing.assert_close(found.entropy_bits[expected], mean[expected])
        assert 0 < expected.sum() < 40
    assert not (found.flagged & expected).any()
    assert (joint >= limit)[mean < threshold].any()


@pytest.mark.parametrize("statistic", ["mixture", "odds"])
def test_joint_acceptance_requires_the_mean_entropy(statistic: Statistic) -> None:
    with pytest.raises(StageError, match=f"accept_by: expected {statistic}, or joint with the statistic mean"):
        strip(pictures(2, 0), pictures(4, 2), logits, threshold_bits=0.1, statistic=statistic, accept_by="joint")
