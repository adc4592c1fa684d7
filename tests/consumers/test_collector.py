"""The choice of frames to label by features of the general network, and by sketches without it."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from consumers.console.data.appearance import ALIKE, SAME, UNLIKE, Vector, sketch
from consumers.console.data.collector import MOST_DESCRIBED, QUIET_MS, Collector
from consumers.console.data.labelled_frames import LabelledFrames, frame_features
from consumers.console.data.pictures import CameraPicture
from schemas.errors import StateError
from tests.consumers.console_rig import ROW, ConsoleRig, jpeg_scene
from tests.consumers.recorder_rig import CAMERA


@pytest.fixture
def labelled_frames(bare_rig: ConsoleRig) -> LabelledFrames:
    assert bare_rig.context.labelled_frames is not None
    return bare_rig.context.labelled_frames


class Features:
    """A stand-in for the features of pictures: unit vectors by picture. Unlisted pictures have none."""

    def __init__(self, *directions: tuple[bytes, int]) -> None:
        self.directions = dict(directions)
        self.described = 0
        self.closed = False

    def __call__(self, jpeg: bytes) -> Vector | None:
        self.described += 1
        direction = self.directions.get(jpeg)
        return None if direction is None else np.eye(8, dtype=np.float32)[direction]

    def close(self) -> None:
        self.closed = True


def with_object(jpeg: bytes) -> bytes:
    """Return a picture with another small object in it."""
    with Image.open(io.BytesIO(jpeg)) as opened:
        changed = opened.convert("L")
    changed.paste(128, (44, 44, 50, 50))
    out = io.BytesIO()
    changed.save(out, "JPEG", quality=85)
    return out.getvalue()


def picture(jpeg: bytes, seq: int, after_ms: int = 1000) -> CameraPicture:
    recorded_ms = time.time_ns() // 10**6 + seq * after_ms
    return CameraPicture("", ROW._replace(seq=seq, recorded_ms=recorded_ms), jpeg)


SCENE, OBJECT, OTHER = jpeg_scene(1), with_object(jpeg_scene(1)), jpeg_scene(2)
"""Pictures: `OBJECT` has nearly the sketch of `SCENE`, and `OTHER` a very different one."""


def test_the_test_pictures_have_the_assumed_similarities() -> None:
    assert ALIKE <= float(sketch(SCENE) @ sketch(OBJECT)) < SAME
    assert float(sketch(SCENE) @ sketch(OTHER)) < UNLIKE


def test_other_content_with_a_similar_sketch_is_kept_too(labelled_frames: LabelledFrames) -> None:
    collector = Collector(labelled_frames, Features((SCENE, 0), (OBJECT, 1)))
    assert [collector.judge(picture(jpeg, seq)) for seq, jpeg in enumerate((SCENE, OBJECT))] == ["new", "new"]


def test_the_same_content_with_another_sketch_is_kept_once(labelled_frames: LabelledFrames) -> None:
    collector = Collector(labelled_frames, Features((SCENE, 0), (OTHER, 0)))
    assert [collector.judge(picture(jpeg, seq)) for seq, jpeg in enumerate((SCENE, OTHER))] == ["new", None]


def test_sketches_decide_while_there_are_no_features(labelled_frames: LabelledFrames) -> None:
    collector = Collector(labelled_frames, Features((SCENE, 0)))
    pictures = (SCENE, OBJECT, OTHER)
    assert [collector.judge(picture(jpeg, seq)) for seq, jpeg in enumerate(pictures)] == ["new", None, "new"]


def test_a_frame_that_the_store_rejects_hides_no_later_one(labelled_frames: LabelledFrames, tmp_path: Path) -> None:
    collector = Collector(labelled_frames)
    folder = tmp_path / "quarantine" / "teach"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CAMERA.partition("/")[0]).write_text("a file in the place of the folder")
    with pytest.raises(StateError, match=r"^kept_files: expected a store that answers, got "):
        collector.judge(picture(SCENE, 0))
    (folder / CAMERA.partition("/")[0]).unlink()
    assert collector.judge(picture(SCENE, 1)) == "new"


def test_a_restarted_collector_compares_with_stored_features(labelled_frames: LabelledFrames) -> None:
    features = Features((SCENE, 0), (OBJECT, 1), (OTHER, 0))
    Collector(labelled_frames, features).judge(picture(SCENE, 0))
    restarted = Collector(labelled_frames, features)
    assert [restarted.judge(picture(jpeg, seq)) for seq, jpeg in ((1, OTHER), (2, OBJECT))] == [None, "new"]


def test_an_identical_picture_needs_no_features(labelled_frames: LabelledFrames) -> None:
    features = Features((SCENE, 0))
    collector = Collector(labelled_frames, features)
    assert [collector.judge(picture(SCENE, seq)) for seq in range(3)] == ["new", None, None]
    assert features.described == 1


def test_a_usual_picture_is_kept_again_after_a_while(labelled_frames: LabelledFrames) -> None:
    collector = Collector(labelled_frames)
    seen = [(0, SCENE), (1, OTHER), (2, SCENE), (3, jpeg_scene(3)), (4, SCENE)]
    found = [collector.judge(picture(jpeg, seq, QUIET_MS // 3)) for seq, jpeg in seen]
    assert found == ["new", "new", None, "new", "usual"]


@pytest.mark.parametrize("ahead_ms", [-3_600_000, 0, 3_600_000])
def test_the_clock_of_a_camera_changes_nothing_after_a_restart(labelled_frames: LabelledFrames, ahead_ms: int) -> None:
    shown = []
    for seq in range(4):
        made = picture(SCENE, seq, QUIET_MS * 3 // 4)
        shown.append(replace(made, row=made.row._replace(captured_ms=made.row.recorded_ms + ahead_ms)))
    assert Collector(labelled_frames).judge(shown[0]) == "new"
    restarted = Collector(labelled_frames)
    assert [restarted.judge(each) for each in shown[1:]] == [None, "usual", None]


def test_a_clock_of_the_console_that_was_set_back_stops_no_collection(labelled_frames: LabelledFrames) -> None:
    collector = Collector(labelled_frames)
    assert collector.judge(picture(SCENE, 100, QUIET_MS)) == "new"
    assert collector.judge(picture(SCENE, 1, QUIET_MS)) == "usual"


def test_features_are_deleted_with_their_frame(bare_rig: ConsoleRig, labelled_frames: LabelledFrames) -> None:
    Collector(labelled_frames, Features((SCENE, 0))).judge(picture(SCENE, 0))
    labelled_frames.discard([each.name for each in labelled_frames.waiting(5)])
    with bare_rig.context.store.engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(frame_features)) == 0


def test_cameras_take_turns_when_there_are_too_many(bare_rig: ConsoleRig, labelled_frames: LabelledFrames) -> None:
    features = Features((SCENE, 0), (OTHER, 1))
    names = [f"{CAMERA}-{number}" for number in range(MOST_DESCRIBED + 2)]
    for name in names:
        labelled_frames.collect(name, "ada", wanted=True)
    collector, kept = Collector(labelled_frames, features), []
    for seq, jpeg in enumerate((SCENE, OTHER)):  # each camera shows a new picture at each step
        rows = [ROW._replace(camera=name, seq=seq) for name in names]
        bare_rig.context.fleet.add_frames(rows, {(name, 1, seq): jpeg for name in names}, {}, 0)
        kept.append(collector.step(bare_rig.context.fleet))
    assert kept == [MOST_DESCRIBED] * 2
    assert {each.camera for each in labelled_frames.waiting(20)} == set(names)


def test_the_process_for_features_ends_with_the_collection(
    bare_rig: ConsoleRig, labelled_frames: LabelledFrames
) -> None:
    features = Features()
    collector = Collector(labelled_frames, features)
    labelled_frames.collect(CAMERA, "ada", wanted=True)
    collector.step(bare_rig.context.fleet)
    assert not features.closed
    labelled_frames.collect(CAMERA, "ada", wanted=False)
    collector.step(bare_rig.context.fleet)
    assert features.closed
