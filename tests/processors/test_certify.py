"""Certified labels: the windows cover every patch, and an exhaustive search finds no patch that changes a label."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lab.data import to_frames
from processors.arrivals.job import PatchCertificate, WindowDependence
from processors.device.certification import Sticker
from processors.device.compiled_pipeline import CompiledPipeline
from processors.pipeline import Pipeline
from processors.results.records import verdict_record
from processors.stages.at_scale import at_scale, reach
from processors.stages.certify import Logits, Pairs, certify, kept_outside, spans, windows
from schemas.errors import StageError
from schemas.messages.frame import Encoding, decode_picture
from schemas.messages.moving import Box
from tests.processors.tiny import (
    KEYS,
    SERVING_MODEL,
    batch_executor,
    classify_copies,
    payload,
    picture,
    tiny_bundle,
    verdict_of,
    verified_job,
)


@given(st.data())
def test_every_patch_lies_wholly_in_a_window(data: st.DataObject) -> None:
    side = data.draw(st.integers(1, 70))
    patch = data.draw(st.integers(1, side))
    across = data.draw(st.integers(1, 12))

    found = spans(side, patch, across)

    assert 1 <= len(found) <= across
    assert all(0 <= start < end <= side for start, end in found)
    assert len({end - start for start, end in found}) == 1
    for start in range(side - patch + 1):
        assert any(first <= start and start + patch <= last for first, last in found)


def test_windows_are_the_products_of_the_spans() -> None:
    inside = windows(32, 20, (5, 3), 6)

    assert inside.shape == (36, 1, 32, 20)
    assert inside[0, 0].sum() == 9 * 5
    assert bool(inside.any(0).all())
    for top, left in itertools.product(range(28), range(18)):
        assert bool(inside[:, 0, top : top + 5, left : left + 3].flatten(1).all(1).any())


def test_a_pair_drops_both_windows_and_the_pixels_that_the_camera_dropped() -> None:
    inside, kept = windows(4, 4, (2, 2), 3), torch.ones(1, 1, 4, 4, dtype=torch.bool)
    kept[..., 3, 0] = False

    found = kept_outside(inside, torch.tensor([[0, 8], [4, 4]]), kept)

    assert found[0, 0].tolist() == [[False, False, True, True], [False, False, True, True], [True, True, False, False],
                                    [False, True, False, False]]  # fmt: skip
    assert not bool(found[1, 0, 1:3, 1:3].any())
    assert not bool(found[1, 0, 3, 0])
    assert int(found[1].sum()) == 11


@pytest.mark.parametrize(("side", "patch", "across"), [(4, 5, 2), (4, 0, 2), (4, 2, 0)])
def test_an_unfit_patch_is_rejected(side: int, patch: int, across: int) -> None:
    with pytest.raises(StageError, match="expected"):
        spans(side, patch, across)


# A toy network on pictures of 3×4 pixels with two values: the kept pixels vote.

HEIGHT, WIDTH, PATCH, ACROSS = 3, 4, (1, 2), 3
PLACES = list(itertools.product(range(HEIGHT - PATCH[0] + 1), range(WIDTH - PATCH[1] + 1)))
INSIDE = windows(HEIGHT, WIDTH, PATCH, ACROSS)


class Judge:
    """A network that compares the counts of both values in the kept pixels: class 0, 1, or 2 if they are close."""

    def __init__(self, picture: np.ndarray) -> None:
        self.picture = torch.from_numpy(picture)
        self.passes = 0

    def __call__(self, pairs: Pairs) -> Logits:
        kept = kept_outside(INSIDE, torch.from_numpy(pairs))[:, 0]
        self.passes += len(pairs)
        ones = (self.picture * kept).sum((1, 2)).float() / kept.sum((1, 2))
        return torch.stack((0.55 - ones, ones - 0.7, 0.15 - 2 * (ones - 0.625).abs()), 1).numpy()


def every_patched(picture: np.ndarray) -> list[np.ndarray]:
    found = []
    for (top, left), values in itertools.product(PLACES, itertools.product((0, 1), repeat=PATCH[0] * PATCH[1])):
        changed = picture.copy()
        changed[top : top + PATCH[0], left : left + PATCH[1]] = np.array(values).reshape(PATCH)
        found.append(changed)
    return found


def test_no_patch_of_the_size_changes_a_certified_label() -> None:
    certified = uncertified = labels = moved = 0
    for number in range(0, 1 << (HEIGHT * WIDTH), 61):
        picture = np.array([number >> i & 1 for i in range(HEIGHT * WIDTH)], np.int64).reshape(HEIGHT, WIDTH)
        own = certify(Judge(picture), len(INSIDE), 5)
        answers = {certify(Judge(each), len(INSIDE), 64).label for each in every_patched(picture)}
        if own.certified:
            assert answers == {own.label}
            certified += 1
            labels |= 1 << own.label
        else:
            uncertified += 1
            moved += answers != {own.label}

    # The test would prove nothing without certificates, or with pictures that no patch can change.
    assert certified > 5
    assert uncertified > 5
    assert moved > 5
    assert labels & 3 == 3


def test_the_certificate_counts_its_passes_through_the_network() -> None:
    for shown in (np.zeros((HEIGHT, WIDTH), np.int64), np.eye(HEIGHT, WIDTH, dtype=np.int64),
                  np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 0]])):  # fmt: skip
        judge = Judge(shown)
        found = certify(judge, len(INSIDE), 4)
        assert found.passes == judge.passes
        assert len(found.first) == len(INSIDE) <= found.label_passes <= found.passes
    assert certify(Judge(np.zeros((HEIGHT, WIDTH), np.int64)), len(INSIDE), 4).passes == 9 * 10 // 2


def test_windows_that_agree_give_the_label_in_one_round() -> None:
    def judge(pairs: Pairs) -> Logits:
        odd = (pairs[:, 0] == 0) & (pairs[:, 1] == 1)
        return np.stack((np.where(odd, 0, 1), np.where(odd, 1, 0)), 1)

    found = certify(judge, 4, 100)

    assert (found.label, found.certified, found.label_passes, found.passes) == (0, False, 4, 10)


def test_a_window_that_hides_the_sticker_gives_the_label() -> None:
    def judge(pairs: Pairs) -> Logits:
        hidden = (pairs == 2).any(1)
        return np.stack((~hidden, hidden), 1).astype(np.float64)

    found = certify(judge, 4, 100)

    assert found.label == 1
    assert not found.certified
    assert found.decisive.tolist() == [True, True, False, True]
    assert certify(judge, 4, 100, label=False).label == 0


def test_pairs_with_the_least_margins_come_first() -> None:
    asked: list[tuple[int, int]] = []

    def judge(pairs: Pairs) -> Logits:
        asked.extend(map(tuple, pairs.tolist()))
        margin = np.array([0.5 if set(pair) == {3} else 0.1 if 3 not in pair and 1 in pair else 1 for pair in pairs])
        return np.stack((margin, np.zeros(len(pairs))), 1)

    certify(judge, 4, 1)

    assert asked[4] == (1, 3)


@pytest.mark.parametrize(("size", "scaled", "patch"), [((24, 32), 8, 5), ((25, 19), 8, 3)])
def test_a_patch_changes_at_most_its_reach_at_the_networks_scale(
    size: tuple[int, int], scaled: int, patch: int
) -> None:
    chance = torch.Generator().manual_seed(1)
    frame, kept = torch.rand(1, 1, *size, generator=chance), torch.rand(1, 1, *size, generator=chance) > 0.25
    before, _ = at_scale(frame, kept, scaled, scaled)
    most = [0, 0]
    for top, left in itertools.product(range(size[0] - patch + 1), range(size[1] - patch + 1)):
        changed = frame.clone()
        changed[..., top : top + patch, left : left + patch] = torch.rand(patch, patch, generator=chance)
        moved = (at_scale(changed, kept, scaled, scaled)[0] != before)[0, 0]
        for side, lines in enumerate((moved.any(1), moved.any(0))):
            places = lines.nonzero()[:, 0].tolist()
            most[side] = max(most[side], places[-1] - places[0] + 1 if places else 0)
    bounds = [reach(patch, side, scaled) for side in size]
    assert all(found <= bound for found, bound in zip(most, bounds, strict=True))
    assert any(found == bound for found, bound in zip(most, bounds, strict=True))


# On the device


@pytest.mark.parametrize(("side", "whole"), [(32, False), (32, True), (96, False)])
def test_a_live_certificate_equals_that_of_the_picture_at_the_networks_scale(
    tmp_path: Path, side: int, whole: bool
) -> None:
    executor = batch_executor(tiny_bundle(tmp_path))
    encoding = Encoding(16, 1.0 if whole else 0.0)
    found, expected = [], []
    for seq in range(2):
        message = payload("site/cam-0", seq, shown=picture(seq, side, side), encoding=encoding)
        (job,) = classify_copies(executor, [verified_job(message)])
        while job.certified is None:
            executor.certify(job)
        found.append(job.certified)
        boxes = [each.place for each in job.certified.windows]
        assert min(each.top for each in boxes) == min(each.left for each in boxes) == 0
        assert max(each.bottom for each in boxes) == max(each.right for each in boxes) == side
        # A label loses no more than its probability, here that of an untrained network.
        assert all(0 <= each.dependence <= job.confidence + 1e-6 for each in job.certified.windows)
        assert job.confidence < 0.9

        shown, mask = decode_picture(job.key, job.frame)
        frame, kept = to_frames(shown[None], torch.device("cpu")), torch.from_numpy(mask)[None, None]
        sticker = Sticker().side(side, side)
        patch = (sticker, sticker)
        if side > 32:
            frame, kept = at_scale(frame, kept, 32, 32)
            patch = (reach(sticker, side, 32),) * 2
        own = certify(partial(by_chain, executor.pipeline, windows(32, 32, patch, 4), frame, kept), 16, 7)
        expected.append((sticker, own.certified and own.label == job.class_id))

    assert [each[:2] for each in found] == expected
    assert {each.patch for each in found} == {5 if side == 32 else 14}


def test_a_certificate_does_not_classify_its_frame_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = batch_executor(tiny_bundle(tmp_path))
    (job,) = classify_copies(executor, [verified_job(payload("site/cam-0", 0))])
    monkeypatch.setattr(CompiledPipeline, "__call__", lambda *_: pytest.fail("it was classified again"))
    while job.certified is None:
        executor.certify(job)


@torch.inference_mode()
def by_chain(pipeline: Pipeline, inside: Tensor, frame: Tensor, kept: Tensor, pairs: Pairs) -> Logits:
    masks = kept_outside(inside, torch.from_numpy(pairs), kept)
    found: Logits = pipeline.logits(frame.expand(len(masks), -1, -1, -1), masks).numpy()
    return found


def test_a_label_that_a_window_changes_is_not_certified(tmp_path: Path) -> None:
    executor = batch_executor(tiny_bundle(tmp_path))
    (job,) = classify_copies(executor, [verified_job(payload("site/cam-0", 1))])
    job.scores = job.scores._replace(class_id=(job.class_id + 1) % 3)
    while job.certified is None:
        executor.certify(job)
    assert job.certified[:2] == (5, False)


def test_a_verdict_carries_the_certificate(tmp_path: Path) -> None:
    executor = batch_executor(tiny_bundle(tmp_path))
    (job,) = classify_copies(executor, [verified_job(payload("site/cam-0", 1))])
    job.model = SERVING_MODEL
    verdict = verdict_of(verdict_record(KEYS, job))
    assert (verdict.certified_patch, verdict.certified) == (0, False)
    job.certified = PatchCertificate(5, certified=True, windows=(WindowDependence(Box(0, 8, 16, 32), 0.75),))
    verdict = verdict_of(verdict_record(KEYS, job))
    assert (verdict.certified_patch, verdict.certified) == (5, True)
    (window,) = verdict.windows
    assert (window.left, window.top, window.right, window.bottom, window.dependence) == (16, 0, 32, 8, 0.75)


def test_a_label_depends_on_the_window_without_which_it_changes() -> None:
    def judge(pairs: Pairs) -> Logits:
        return np.array([[0.0, 3.0] if 2 in pair else [3.0, 0.0] for pair in pairs])

    found = certify(judge, 4, 16, label=False)
    assert not found.certified
    np.testing.assert_allclose(found.dependence(0), np.where(np.arange(4) == 2, 0.9526, 0.0474), atol=1e-4)
    np.testing.assert_allclose(found.dependence(0, 3.0), np.where(np.arange(4) == 2, 0.7311, 0.2689), atol=1e-4)
    # A verdict that most windows do not give, as under a trigger, depends on all other windows.
    assert found.label == 0
    np.testing.assert_allclose(found.dependence(1), np.where(np.arange(4) == 2, 0.0474, 0.9526), atol=1e-4)


def test_a_patch_grows_by_its_reach_where_the_frame_is_resampled(tmp_path: Path) -> None:
    pipeline = Pipeline(tiny_bundle(tmp_path))
    kept = torch.ones(1, 1, 96, 128, dtype=torch.bool)
    shown, known, patch = pipeline.at_own_scale(torch.rand(1, 3, 96, 128), kept, (14, 14))
    assert (tuple(shown.shape), tuple(known.shape)) == ((1, 3, 32, 32), (1, 1, 32, 32))
    assert patch == (reach(14, 96, 32), reach(14, 128, 32)) == (7, 6)
    whole = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    assert pipeline.at_own_scale(*whole, (5, 5))[2] == (5, 5)
