"""Scene and data-set sources, and the framing of their pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from producers.scene import SceneSimulator
from producers.sources.framing import Framing, resize
from producers.sources.opening import open_source
from producers.sources.settings import SourceSettings
from producers.sources.source import CapturedFrame, Source
from schemas.errors import SourceError
from schemas.messages.frame import Truth


def read_frame(source: Source) -> CapturedFrame:
    captured = source.read()
    assert captured is not None
    return captured


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Write ten grey images of 6 × 5; image n has pixels n and label n + 10."""
    file = tmp_path / "numbers.npz"
    images = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None], (10, 6, 5))
    np.savez(file, test_x=images, test_y=np.arange(10) + 10, train_x=images[:3])
    return file


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "dataset"}, "needs file"),
        ({"kind": "video"}, "needs file"),
        ({"kind": "url"}, "needs address"),
        ({"kind": "scene", "file": "x.npz"}, "got file"),
        ({"kind": "video", "file": "x.mp4", "prerendered": 3}, "got prerendered"),
        ({"kind": "radio"}, "'scene', 'dataset', 'video' or 'url'"),
        ({"kind": "scene", "colour": 3}, "Extra inputs"),
        ({"kind": "scene", "size": (0, 4)}, "greater than or equal to 1"),
        ({"kind": "scene", "channels": 2}, "1 or 3"),
    ],
)
def test_settings_that_do_not_fit_their_kind_are_rejected_by_name(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceSettings.model_validate(fields)


def test_an_address_is_hidden_in_the_settings() -> None:
    assert "secret" not in repr(SourceSettings(kind="url", address=SecretStr("rtsp://user:secret@camera/1")))


def test_a_scene_source_gives_the_simulators_frames_with_their_class() -> None:
    source = open_source(SourceSettings(kind="scene", seed=7, size=(40, 24)), camera_index=3)
    simulator = SceneSimulator(7, 3, (24, 40))
    for position in range(3):
        picture, label = simulator.render(position)
        captured = read_frame(source)
        assert (captured.position, captured.truth) == (position, Truth(label))
        np.testing.assert_array_equal(captured.picture, picture)


def test_prerendered_scenes_repeat_and_positions_continue() -> None:
    source = open_source(SourceSettings(kind="scene", prerendered=2))
    captured = [read_frame(source) for _ in range(5)]
    assert [c.position for c in captured] == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(captured[0].picture, captured[4].picture)
    assert not np.array_equal(captured[0].picture, captured[1].picture)


def test_a_scene_too_small_to_draw_is_a_source_error() -> None:
    with pytest.raises(SourceError, match="16 to 4096"):
        open_source(SourceSettings(kind="scene", size=(8, 8)))


def test_cameras_divide_a_data_set_by_stride(dataset: Path) -> None:
    settings = SourceSettings(kind="dataset", file=dataset, stride=3)
    seen = []
    for camera in range(3):
        source = open_source(settings, camera)
        while (captured := source.read()) is not None:
            assert captured.picture.shape == (6, 5, 1)
            assert captured.truth == Truth(int(captured.picture[0, 0, 0]) + 10)
            seen.append(int(captured.picture[0, 0, 0]))
    assert seen == [0, 3, 6, 9, 1, 4, 7, 2, 5, 8]


def test_an_explicit_offset_replaces_the_cameras_index(dataset: Path) -> None:
    source = open_source(SourceSettings(kind="dataset", file=dataset, offset=4), camera_index=2)
    assert read_frame(source).picture[0, 0, 0] == 4


def test_a_looped_data_set_continues_its_positions(dataset: Path) -> None:
    source = open_source(SourceSettings(kind="dataset", file=dataset, stride=4, loop=True), camera_index=1)
    source.seek(2)
    captured = [read_frame(source) for _ in range(3)]
    assert [(c.position, int(c.picture[0, 0, 0])) for c in captured] == [(2, 9), (3, 1), (4, 5)]


def test_a_split_without_labels_has_no_truth(dataset: Path) -> None:
    assert read_frame(open_source(SourceSettings(kind="dataset", file=dataset, split="train"))).truth is None


def test_cameras_share_one_copy_of_the_images(tmp_path: Path) -> None:
    file = tmp_path / "plain.npz"
    np.savez(file, images=np.zeros((2, 4, 4, 3), np.uint8))
    first, second = (read_frame(open_source(SourceSettings(kind="dataset", file=file))) for _ in range(2))
    assert np.shares_memory(first.picture, second.picture)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "an array test_x or images, got other"),
        ({"test_x": np.zeros((2, 4, 4, 3))}, r"uint8 .*, got float64 \(2, 4, 4, 3\)"),
        ({"test_x": np.zeros((2, 4, 4, 2), np.uint8)}, r"got uint8 \(2, 4, 4, 2\)"),
        ({"test_x": np.zeros((2, 4, 4), np.uint8), "test_y": np.zeros(3, np.int64)}, r"2 integers.*, got int64 \(3,\)"),
        ({"test_x": np.zeros((2, 4, 4), np.uint8), "test_y": np.full(2, -1)}, "integers from 0"),
        ({"test_x": np.zeros((0, 4, 4), np.uint8)}, "more than 0 images, got 0"),
    ],
)
def test_a_data_set_of_an_invalid_form_is_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    file = tmp_path / "wrong.npz"
    np.savez(file, **arrays)
    with pytest.raises(SourceError, match=message):
        open_source(SourceSettings(kind="dataset", file=file))


@pytest.mark.parametrize("content", [b"", b"neither", b"PK\x03\x04 broken"])
def test_an_invalid_file_is_a_source_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.npz"
    file.write_bytes(content)
    with pytest.raises(SourceError, match="expected an npz file"):
        open_source(SourceSettings(kind="dataset", file=file))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_byte_in_a_data_set_is_a_source_error_or_changes_nothing(tmp_path: Path, compressed: bool) -> None:
    file = tmp_path / "damaged.npz"
    pictures = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    (np.savez_compressed if compressed else np.savez)(file, test_x=pictures)
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        os.utime(file, ns=(at, at))  # a new modification time, so that the cache reads the file again
        try:
            source = open_source(SourceSettings(kind="dataset", file=file))
        except SourceError:
            continue
        assert np.array_equal(read_frame(source).picture[..., 0], pictures[0])


def test_a_single_array_is_no_data_set(tmp_path: Path) -> None:
    file = tmp_path / "single.npz"
    with file.open("wb") as out:
        np.save(out, np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(SourceError, match="expected an npz file"):
        open_source(SourceSettings(kind="dataset", file=file))


def test_a_missing_data_set_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.npz: expected a readable file, got No such file"):
        open_source(SourceSettings(kind="dataset", file=tmp_path / "nowhere.npz"))


def test_the_region_is_cut_before_size_and_channels_change(dataset: Path) -> None:
    settings = SourceSettings(kind="dataset", file=dataset, region=(1, 2, 4, 4), size=(2, 2), channels=3, offset=6)
    picture = read_frame(open_source(settings)).picture
    np.testing.assert_array_equal(picture, np.full((2, 2, 3), 6))


@bounded(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.sampled_from((1, 3)))
def test_shrinking_by_whole_factors_averages_each_area(
    height: int, width: int, down: int, across: int, channels: int
) -> None:
    rng = np.random.default_rng(height * 1000 + width * 100 + down * 10 + across)
    picture = rng.integers(0, 256, (height * down, width * across, channels), dtype=np.uint8)
    mean = picture.reshape(height, down, width, across, channels).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(picture, (width, height)), mean, atol=1.01)


def test_a_large_picture_without_a_size_setting_keeps_its_size() -> None:
    picture = np.zeros((1080, 1920, 3), np.uint8)
    assert Framing()(picture).shape == (1080, 1920, 3)


def test_a_picture_above_the_frame_limit_is_a_source_error_with_a_remedy() -> None:
    with pytest.raises(SourceError, match="set a size or a region"):
        Framing()(np.zeros((4000, 4000, 3), np.uint8))


def test_a_region_outside_the_picture_is_a_source_error() -> None:
    with pytest.raises(SourceError, match=r"inside 20x10, got 8x8 at \(4, 4\)"):
        Framing(region=(4, 4, 8, 8))(np.zeros((10, 20, 3), np.uint8))


def test_grey_is_the_luma_of_rgb() -> None:
    picture = np.zeros((1, 3, 3), np.uint8)
    picture[0, range(3), range(3)] = 255
    np.testing.assert_allclose(Framing(channels=1)(picture)[0, :, 0], 255 * np.array([0.299, 0.587, 0.114]), atol=0.6)
