"""Previews of frames as they were sent: the choice of frames, the rate, and the content."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from processors.arrivals.job import FrameJob, PreviewKind
from processors.bundle import Bundle
from processors.bundle.model_toml import Scores
from processors.device.previews import PreviewTurns
from processors.pipeline import Pipeline
from processors.settings import ProcessorSettings
from processors.stages.resample import fitted, resize
from schemas.messages.frame import Encoding, decode_picture
from schemas.pixels.packing import Picture
from schemas.pointillist_pb2 import LOSSLESS, RAW
from tests.processors.test_publish import published
from tests.processors.tiny import (
    SERVING_MODEL,
    batch_executor,
    classify_copies,
    payload,
    picture,
    tiny_bundle,
    verified_job,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


def new_turns() -> PreviewTurns:
    return PreviewTurns(ProcessorSettings(kafka="none", bundle=Path("none")))


def selected(turns: PreviewTurns, now_s: float, encoding: Encoding, camera: str = "site/cam-0") -> PreviewKind:
    return turns.select(verified_job(payload(camera, 1, encoding=encoding), camera), now_s)


def test_some_previews_have_a_picture_as_sent_and_that_of_a_probe_comes_at_once() -> None:
    turns, plain, probe = new_turns(), Encoding(16), Encoding(16, probe_share=1.0)
    assert [selected(turns, at, plain) for at in (0.0, 0.5, 1.0, 4.9, 5.9)] == [
        PreviewKind.BOTH, PreviewKind.NOTHING, PreviewKind.REBUILT, PreviewKind.REBUILT, PreviewKind.BOTH,
    ]  # fmt: skip
    assert [selected(turns, at, probe) for at in (6.0, 6.1, 7.0, 11.0)] == [
        PreviewKind.BOTH, PreviewKind.NOTHING, PreviewKind.REBUILT, PreviewKind.BOTH,
    ]  # fmt: skip
    assert selected(turns, 7.0, plain, "site/cam-1") == PreviewKind.BOTH


def test_up_to_sixteen_viewed_cameras_get_five_previews_a_second() -> None:
    turns, plain = new_turns(), Encoding(16)
    times = [0.0, 0.05, 0.25, 0.3, 0.5, 3.0, 3.25, 20.0, 20.25]
    turns.view("site/cam-0", 3.1, now_s=0.0)
    assert [selected(turns, at, plain) is not PreviewKind.NOTHING for at in times] == [
        True, False, True, False, True, True, False, True, False,
    ]  # fmt: skip
    for index in range(1, 20):
        turns.view(f"site/cam-{index}", 1e9, now_s=30.0)
    fast = []
    for index in range(20):
        selected(turns, 31.0, plain, f"site/cam-{index}")
        fast.append(selected(turns, 31.25, plain, f"site/cam-{index}") is not PreviewKind.NOTHING)
    assert fast == [False] + 16 * [True] + 3 * [False]
    selected(turns, 46.0, plain, "site/cam-1")
    assert selected(turns, 46.25, plain, "site/cam-1") is PreviewKind.NOTHING, "the duration of a view is bounded"


def as_sent(bundle: Bundle, message: bytes) -> tuple[FrameJob, Picture]:
    (found,) = classify_copies(batch_executor(bundle), [verified_job(message)], [PreviewKind.BOTH])
    assert found.shown is not None
    assert found.as_sent is not None
    assert found.as_sent.shape == found.shown.shape
    return found, found.as_sent


@pytest.mark.parametrize("profile", [RAW, LOSSLESS])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 24), (90, 500), (432, 768)])
def test_the_picture_as_sent_is_black_at_dropped_pixels(bundle: Bundle, height: int, width: int, profile: int) -> None:
    message = payload("site/cam-0", 3, encoding=Encoding(24, profile=profile), shown=picture(3, height, width))
    sent, _ = decode_picture(verified_job(message).key, verified_job(message).frame)
    _, shown = as_sent(bundle, message)
    small = resize(torch.from_numpy(sent).permute(2, 0, 1)[None] / 255, *fitted(height, width, 384))
    np.testing.assert_allclose(shown, small[0].permute(1, 2, 0) * 255, atol=0.51)


def test_the_picture_as_sent_of_a_probe_is_whole(bundle: Bundle) -> None:
    pixels = picture(3)
    found, shown = as_sent(bundle, payload("site/cam-0", 3, encoding=Encoding(24, 1.0), shown=pixels))
    np.testing.assert_array_equal(shown, pixels)
    assert found.shown is not None
    assert (found.shown != pixels).any()
    large = picture(3, 432, 768)
    _, shown = as_sent(bundle, payload("site/cam-0", 3, encoding=Encoding(24, 1.0), shown=large))
    small = resize(torch.from_numpy(large).permute(2, 0, 1)[None] / 255, 216, 384)
    np.testing.assert_allclose(shown, small[0].permute(1, 2, 0) * 255, atol=0.51)


def test_no_picture_as_sent_is_made_if_only_the_rebuilt_one_is_requested(bundle: Bundle) -> None:
    frames = [verified_job(payload("site/cam-0", seq)) for seq in range(3)]
    found = classify_copies(
        batch_executor(bundle), frames, [PreviewKind.REBUILT, PreviewKind.BOTH, PreviewKind.NOTHING]
    )
    assert [(each.shown is not None, each.as_sent is not None) for each in found] == [
        (True, False), (True, True), (False, False),
    ]  # fmt: skip


@pytest.mark.parametrize("failing", ["show", "show_sent"])
def test_a_preview_that_fails_costs_no_frame_its_class(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("too bright")

    frames = [verified_job(payload("site/cam-0", seq)) for seq in range(2)]
    expected = classify_copies(batch_executor(bundle), frames, [PreviewKind.BOTH] * 2)
    monkeypatch.setattr(Pipeline, failing, fail)
    failures: list[str] = []
    executor = batch_executor(bundle)
    monkeypatch.setattr(executor._metrics, "stage_failed", failures.append)
    found = classify_copies(executor, frames, [PreviewKind.BOTH] * 2)
    assert [each.scores for each in found] == [each.scores for each in expected]
    assert [each.changed for each in found] == [each.changed for each in expected]
    assert not any(each.error or each.as_sent is not None for each in found)
    assert failures == ["preview"]


def test_if_a_preview_lacks_memory_the_batch_is_halved(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Pipeline.show

    def show(self: Pipeline, frames: Any, *rest: Any) -> torch.Tensor:
        if len(frames) > 1:
            raise MemoryError
        return original(self, frames, *rest)

    monkeypatch.setattr(Pipeline, "show", show)
    frames = [verified_job(payload("site/cam-0", seq)) for seq in range(2)]
    found = classify_copies(batch_executor(bundle), frames, [PreviewKind.BOTH] * 2)
    assert all(each.scores and each.shown is not None for each in found)


async def test_the_picture_as_sent_is_encrypted_in_the_verdict() -> None:
    frame = verified_job(payload("site/cam-0", 1))
    light, dark = (np.full((64, 48, 3), level, np.uint8) for level in (200, 50))
    frame.model, frame.scores = SERVING_MODEL, Scores(0, 0.9)
    frame.shown, frame.as_sent = light, dark
    (verdict,) = await published([frame])
    assert not verdict.evidence
    for jpeg, shown in ((verdict.preview, light), (verdict.as_sent, dark)):
        np.testing.assert_allclose(np.asarray(Image.open(io.BytesIO(jpeg))), shown, atol=2)
