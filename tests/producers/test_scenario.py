"""Scenario files: their cameras, their errors, and the faults of simulated sources."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from producers.camera.camera_settings import CameraGroup
from producers.scene.sticker import paste_sticker
from producers.simulation.faults import FaultPlan, FaultySource
from producers.simulation.scenario import Fault, Scenario, load_scenario, parse_scenario
from producers.sources.source import CapturedFrame
from schemas.errors import ConfigError
from schemas.messages.frame import Truth
from schemas.pixels.planes import Planes, to_picture
from schemas.pointillist_pb2 import LOSSLESS
from tests.producers.faulty_rig import Pictures, frames_with_faults
from tests.producers.stand_in_generator import write_generator

WHOLE = """
site: plant
defaults:
  fps: 5
  drop_ratio: 0.5
  source: {kind: scene, seed: 3}
cameras:
  - name: "gate-{index:02}"
    count: 11
  - name: dock
    fps: 0
    profile: lossless
    probe_share: 0.05
    spool: {max_bytes: 1000000}
    window: {frames: 8}
  - {name: yard, profile: lossless}
faults:
  - {camera: dock, at_s: 10, kind: dark, for_s: 5}
"""


def write_scenario(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    return path


def test_a_scenario_sets_every_cameras_name_index_and_settings(tmp_path: Path) -> None:
    cameras = load_scenario(write_scenario(tmp_path, WHOLE)).cameras()

    assert [camera.camera_id for camera in cameras][:2] == ["plant/gate-00", "plant/gate-01"]
    assert [camera.index for camera in cameras] == list(range(13))
    gate, dock = cameras[10], cameras[11]
    assert (gate.camera_id, gate.fps, gate.encoding.dropped_per_block, gate.source.seed) == ("plant/gate-10", 5, 32, 3)
    assert (dock.fps, dock.encoding.profile, dock.spool.max_bytes, dock.window.frames) == (0, LOSSLESS, 1_000_000, 8)
    assert dock.encoding.probe_share == 0.05
    assert cameras[12].encoding.profile == LOSSLESS


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("fps: 5", "fsp: 5"), r"defaults\.fsp: unknown key; expected one of .*fps"),
        (("name: dock", "name: Dock 1"), r"site/camera"),
        (("fps: 0", "fps: -1"), r"cameras\.1\.fps: expected at least 0, got -1"),
        (("yard, profile: lossless", "yard, profile: jpeg"), r"cameras\.2\.profile: .*'lossless' or 'video'.*jpeg"),
        (("frames: 8", "frames: many"), r"cameras\.1\.window\.frames: .*'many'"),
        (("seed: 3", "sed: 3"), r"defaults\.source\.sed: unknown key; expected one of .*seed"),
        (("fps: 5", "video: {codec: av1, max_bytes_per_second: 9000}"), r": defaults: video: expected max_bytes.*av1"),
        (("drop_ratio: 0.5", "drop_ratio: 0.9"), r"defaults\.drop_ratio: .*0\.875"),
        (("kind: dark", "kind: explode"), r"faults\.0\.kind: .*'dark'.*explode"),
        (("camera: dock", "camera: pier"), r"faults\.0\.camera: expected a camera of this fleet, got 'pier'"),
        (("name: dock", "name: gate-03"), r"expected one camera plant/gate-03, got two"),
        (("site: plant", ""), r"site: expected a value"),
        (("site: plant", "site: [plant"), r"line \d+, column \d+"),
    ],
)
def test_an_invalid_scenario_is_rejected_in_one_line_with_file_place_and_expected_value(
    tmp_path: Path, change: tuple[str, str], expected: str
) -> None:
    path = write_scenario(tmp_path, WHOLE.replace(*change))
    with pytest.raises(ConfigError, match=expected) as raised:
        load_scenario(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("rtsp://u:hidden@h/x", "defaults.source"),
        ("{kind: url, address: [rtsp://u:hidden@h/x]}", "defaults.source.address"),
        ("{kind: url, address: rtsp://u:hidden@h/x, file: clip.mp4}", "defaults.source"),
        ("{kind: video, file: clip.mp4, size: [hidden, 3]}", "defaults.source.size.0"),
        ("{rtsp://u:hidden@h/x}", "defaults.source"),
        ("scene, rtsp://u:hidden@h/x: 1", "defaults.source"),
    ],
)
def test_an_error_about_a_source_never_repeats_a_possible_password(tmp_path: Path, source: str, place: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_scenario(write_scenario(tmp_path, WHOLE.replace("{kind: scene, seed: 3}", source)))
    assert "hidden" not in str(raised.value)
    assert place in str(raised.value) or "line" in str(raised.value)


def test_an_address_in_place_of_a_camera_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"cameras\.0") as raised:
        parse_scenario({"site": "a", "cameras": ["rtsp://u:hidden@h/x"]})
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "- a list", "just text", "\0"])
def test_a_file_without_a_scenario_is_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load_scenario(write_scenario(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        load_scenario(tmp_path / "nowhere.yaml")


def test_several_cameras_need_an_index_in_their_name() -> None:
    with pytest.raises(ConfigError, match="index"):
        Scenario(site="a", cameras=[CameraGroup(name="same", count=2)])


def frame(value: int) -> CapturedFrame:
    return CapturedFrame(np.full((16, 16, 3), value, np.uint8), value, Truth(4))


def test_faults_last_from_their_start_for_their_duration_and_set_the_truth() -> None:
    plan = FaultPlan(
        [
            Fault(camera="c", at_s=1, kind="freeze", for_s=2),
            Fault(camera="c", at_s=4, kind="black", for_s=1),
            Fault(camera="c", at_s=6, kind="sticker", for_s=1),
            Fault(camera="c", at_s=8, kind="dark", for_s=1),
            Fault(camera="c", at_s=10, kind="disconnect", for_s=1),
        ]
    )
    plan.begin(50_000)
    seen = frames_with_faults(plan, [(frame(second), 50_000 + 1000 * second) for second in range(10)])

    assert [int(seen[second].picture[0, 0, 0]) for second in (0, 1, 2, 3, 4, 5)] == [0, 1, 1, 3, 0, 5]
    assert [seen[second].position for second in range(10)] == list(range(10))
    assert seen[4].truth is None
    assert seen[6].truth == Truth(4, sticker=True)
    assert np.array_equal(seen[6].picture, paste_sticker(frame(6).picture))
    assert [plan.is_dark(50_000 + 1000 * second) for second in (7, 8, 9, 10)] == [False, True, False, False]
    assert [plan.is_cut_off(50_000 + 1000 * second) for second in (7, 8, 9, 10, 11)] == [
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("kind", ["freeze", "black", "sticker"])
def test_faults_also_change_the_planes_of_a_source(kind: Literal["freeze", "black", "sticker"]) -> None:
    plan = FaultPlan([Fault(camera="c", at_s=1, kind=kind, for_s=5)])
    plan.begin(0)
    planes = [Planes(np.full((16, 16), 50 + 20 * second, np.uint8), None, None) for second in range(8)]
    seen = frames_with_faults(
        plan, [(frame(second)._replace(planes=planes[second]), 1000 * second) for second in range(8)]
    )
    sent = [each.picture if each.planes is None else to_picture(each.planes) for each in seen]
    same = [np.array_equal(sent[second], to_picture(planes[second])) for second in range(8)]
    assert same == [True, kind == "freeze", False, False, False, False, True, True]


def test_relative_paths_start_at_the_scenarios_folder(tmp_path: Path) -> None:
    text = """
site: yard
bundle: models/own
defaults: {source: {kind: video, file: street.mp4}}
cameras:
  - {name: street}
  - {name: "data-{index}", source: {kind: dataset, file: "sets/{index}.npz"}}
  - {name: far, source: {kind: url, address: "rtsp://h/x", login: {file: far.login}}}
  - {name: near, source: {kind: url, address: near.mp4}}
  - {name: fixed, source: {kind: video, file: /films/x.mp4}}
faults:
  - {camera: far, kind: attack, at_s: 0, for_s: 1, generator: attacks/own}
  - {camera: near, kind: attack, at_s: 0, for_s: 1, generator: scene}
"""
    write_generator(tmp_path / "attacks" / "own")
    (tmp_path / "models" / "own").mkdir(parents=True)
    (tmp_path / "models" / "own" / "model.toml").touch()
    scenario = load_scenario(write_scenario(tmp_path, text))
    assert scenario.bundle == str(tmp_path / "models/own")
    assert [fault.generator for fault in scenario.faults] == [str(tmp_path / "attacks/own"), "scene"]
    street, data, far, near, fixed = (camera.source for camera in scenario.cameras())
    assert [street.file, data.file, fixed.file] == [
        tmp_path / "street.mp4", tmp_path / "sets/0.npz", Path("/films/x.mp4"),
    ]  # fmt: skip
    assert far.login is not None
    assert far.login.file == tmp_path / "far.login"
    assert near.address is not None
    assert near.address.get_secret_value() == str(tmp_path / "near.mp4")


def test_no_fault_is_active_before_the_fleets_clock_begins() -> None:
    plan = FaultPlan([Fault(camera="c", at_s=0, kind="black", for_s=10**9)])
    [before] = frames_with_faults(plan, [(frame(7), 50_000)])
    plan.begin(50_000)
    [after] = frames_with_faults(plan, [(frame(7), 50_000)])
    assert (int(before.picture[0, 0, 0]), int(after.picture[0, 0, 0])) == (7, 0)


def test_a_dark_source_returns_no_picture_until_the_fault_ends_or_it_is_closed() -> None:
    plan = FaultPlan([Fault(camera="c", at_s=0, kind="dark", for_s=1)])
    plan.begin(0)
    times = iter((0, 999, 1000, 1000))
    bright = FaultySource(Pictures([frame(1)]), plan, clock_ms=lambda: next(times))
    assert bright.read() is not None
    assert next(times, None) is None
    pictures = Pictures([frame(1)])
    closed = FaultySource(pictures, plan, clock_ms=lambda: 0)
    closed.close()
    assert closed.read() is None
    assert pictures.closed


@pytest.mark.parametrize(("kind", "blocking"), [("dark", True), ("freeze", False), ("disconnect", False)])
def test_a_faulty_source_is_read_on_demand_and_in_a_thread_if_a_fault_blocks(kind: str, blocking: bool) -> None:
    fault = Fault.model_validate({"camera": "c", "at_s": 0, "kind": kind, "for_s": 1})
    source = FaultySource(Pictures([]), FaultPlan([fault]))
    assert (source.on_demand, source.blocking) == (True, blocking)
