from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.backdoor.triggers import Patch
from lab.data import LabelledPictures
from lab.evidence.judge import judge, target_of
from lab.evidence.watched_cameras import Watched, shots, watch
from processors.pipeline import Pipeline
from schemas.evidence.rule import EvidenceRule
from tests.processors.tiny import tiny_bundle

CLEAN, STAMPED, TARGET = 40, 20, 5


def watched(falls: bool = True) -> Watched:
    """Six cameras: the trigger makes entropies fall on all but the last, whose scene has the target's class."""
    rng = np.random.default_rng(0)
    bits = (2.0 * 2 ** rng.normal(0, 0.1, (6, CLEAN + STAMPED))).astype(np.float32)
    labels = np.array([0, 1, 2, 3, 4, TARGET])
    classes = np.repeat(labels[:, None], CLEAN + STAMPED, 1)
    if falls:
        bits[:5, CLEAN:] /= 8
        classes[:5, CLEAN:] = TARGET
    return Watched(bits, np.full_like(bits, 0.9), classes, labels, CLEAN)


def test_cameras_before_which_entropies_fall_are_found_and_the_targets_own_is_not_asked_for() -> None:
    found = judge(watched(), EvidenceRule(), TARGET, repeats=5).as_dict()
    assert found["cameras"] == found["cameras_where_the_trigger_works"] == 5
    assert found["missed_share"] == found["missed_share_where_it_works"] == 0
    assert found["false_alarms_per_1000_frames"] == 0
    assert found["clean_frames"] == 6 * CLEAN * 5
    assert 1 <= found["frames_to_alarm"]["p50"] <= found["frames_to_alarm"]["most"] <= STAMPED


def test_a_trigger_that_changes_nothing_is_missed_and_does_not_count_as_working() -> None:
    found = judge(watched(falls=False), EvidenceRule(), TARGET).as_dict()
    assert found["missed_share"] == 1
    assert found["cameras_where_the_trigger_works"] == 0
    assert found["missed_share_where_it_works"] is None


def test_the_target_is_where_the_stamped_frames_of_other_classes_go() -> None:
    assert target_of(watched()) == TARGET


def test_what_was_watched_can_be_kept(tmp_path: Path) -> None:
    before = watched()
    before.save(tmp_path / "deep" / "kept.npz")
    after = Watched.load(tmp_path / "deep" / "kept.npz")
    np.testing.assert_array_equal(after.entropy_bits, before.entropy_bits)
    assert judge(after, EvidenceRule(), TARGET) == judge(before, EvidenceRule(), TARGET)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_camera_trembles_and_its_light_drifts_but_the_scene_stays(channels: int) -> None:
    rows, columns = np.mgrid[:32, :32]
    picture = np.repeat((4 * (rows + columns))[..., None], channels, 2).astype(np.uint8)
    taken = shots(picture, 300, 0, np.random.default_rng(1))
    assert taken.shape == (300, 32, 32, channels)
    assert taken.dtype == np.uint8
    assert len(np.unique(taken.reshape(300, -1), axis=0)) == 300
    light = taken.reshape(300, -1).mean(1) / picture.mean()
    assert light[50:100].mean() > 1.05
    assert light[200:250].mean() < 0.95


def test_a_camera_is_checked_from_its_first_frame(tmp_path: Path) -> None:
    pictures = LabelledPictures("scenes", scenes(2), np.array([0, 1]))
    trigger = Patch(np.full((4, 4, 3), 255, np.uint8), 2, 2)
    found = watch(Pipeline(tiny_bundle(tmp_path, threshold_bits=10.0)), pictures, trigger, 0.25, 5, 4, 0)
    assert found.entropy_bits.shape == (2, 9)
    assert np.isfinite(found.entropy_bits).all()
    assert (found.threshold_bits == 10).all()
    probes = list(found.probes(0, slice(0, 9)))
    assert [each.seq for each in probes] == list(range(9))


def scenes(count: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:32, :32]
    smooth = [(3 * rows + 2 * columns + 20 * number) % 200 for number in range(count)]
    return np.repeat(np.stack(smooth)[..., None], 3, 3).astype(np.uint8)
