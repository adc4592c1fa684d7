"""The process that computes features of pictures for the console, with a stand-in and with the general network."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from consumers.console.data.appearance import ALIKE, FEATURES_ALIKE, UNLIKE, Vector, sketch
from infra.cli import console_features
from infra.cli.console_features import FeatureProcess

VIDEO = Path(os.environ.get("POINTILLIST_DATA", ""), "video", "intel_one-by-one-person-detection.mp4")
STAND_IN = """
import sys
from array import array
open(sys.argv[1], "a").write("started\\n")
while size := int.from_bytes(sys.stdin.buffer.read(4), "big"):
    jpeg = sys.stdin.buffer.read(size)
    if jpeg == b"end":
        break
    reply = b"" if jpeg == b"none" else array("f", [size, 0.5]).tobytes()
    sys.stdout.buffer.write(len(reply).to_bytes(4, "big") + reply)
    sys.stdout.buffer.flush()
"""


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    return tmp_path / "starts"


@pytest.fixture
def process(starts: Path) -> Iterator[FeatureProcess]:
    features = FeatureProcess((sys.executable, "-S", "-c", STAND_IN, str(starts)))
    yield features
    features.close()


def values(features: Vector | None) -> list[float]:
    assert features is not None
    return [float(each) for each in features]


def test_one_process_computes_the_features_of_all_pictures(process: FeatureProcess, starts: Path) -> None:
    assert values(process(b"abc")) == [3.0, 0.5]
    assert process(b"none") is None
    assert values(process(b"x" * 300_000)) == [300_000.0, 0.5]
    assert starts.read_text() == "started\n"


def test_a_closed_process_restarts_with_the_next_picture(process: FeatureProcess, starts: Path) -> None:
    process(b"abc")
    process.close()
    assert values(process(b"abc")) == [3.0, 0.5]
    assert starts.read_text() == "started\n" * 2


def test_a_process_that_ended_is_restarted_only_after_a_pause(
    process: FeatureProcess, starts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process(b"end") is None
    assert process(b"abc") is None
    assert starts.read_text() == "started\n"
    monkeypatch.setattr(process, "_not_before_s", 0.0)
    assert values(process(b"abc")) == [3.0, 0.5]


def test_a_process_that_does_not_answer_gives_no_features(starts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_features, "REPLY_S", 0.2)
    assert FeatureProcess((sys.executable, "-c", "import time; time.sleep(60)"))(b"abc") is None


def test_no_process_is_created_without_the_general_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_features, "named_bundles", dict)
    assert console_features.feature_process() is None


def as_jpeg(picture: NDArray[np.float64]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not VIDEO.is_file(), reason="expected the sample videos in POINTILLIST_DATA")
def test_the_general_network_compares_content_and_sketches_compare_light(monkeypatch: pytest.MonkeyPatch) -> None:
    with av.open(str(VIDEO)) as video:
        frame = next(video.decode(video=0)).reformat(width=384, height=216, format="rgb24").to_ndarray()
    scene = frame.astype(float)
    visitor = scene.copy()
    visitor[100:120, 200:210] = 20
    visitor[100:105, 200:210] = (200, 150, 120)
    shaded = scene * np.linspace(0.75, 1.1, scene.shape[1])[None, :, None]
    plain, other, light = (as_jpeg(each) for each in (scene, visitor, shaded))
    assert float(sketch(plain) @ sketch(other)) >= ALIKE
    assert float(sketch(plain) @ sketch(light)) < UNLIKE
    monkeypatch.setattr(console_features, "_NICENESS", 0)
    monkeypatch.setattr(console_features, "REPLY_S", 250.0)
    process = FeatureProcess()
    try:
        assert process(b"no picture") is None
        assert process._process is not None, "the process has answered and still runs"
        of_plain, of_other, of_light = (process(each) for each in (plain, other, light))
        assert of_plain is not None
        assert of_other is not None
        assert of_light is not None
        assert float(of_plain @ of_other) < FEATURES_ALIKE <= float(of_plain @ of_light)
    finally:
        process.close()
