"""The camera file: addresses, defaults, paths, enrolments, and its errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from producers.fleet.camera_file import ListedCamera, load_camera_file, parse_camera_file
from producers.settings_file import read_yaml
from schemas.errors import ConfigError
from schemas.identity import CameraId

FOLDER = Path("/etc/pointillist")
GATE = {"name": "gate", "source": {"address": "rtsp://10.0.0.1/live"}}


def listed(values: dict[str, Any]) -> dict[CameraId, ListedCamera]:
    return parse_camera_file({"site": "yard", **values}, FOLDER, "cameras.yaml")


def address(camera: ListedCamera) -> str:
    assert camera.settings.source.address is not None
    return camera.settings.source.address.get_secret_value()


def test_index_and_environment_variables_are_replaced_in_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE_LOGIN", "viewer:p%40ss")
    group = {
        "name": "gate-{index:02}",
        "count": 3,
        "first": 9,
        "source": {"address": "rtsp://${GATE_LOGIN}@10.0.0.{index}/s"},
    }
    found = listed({"cameras": [group]})
    assert {name: address(camera) for name, camera in found.items()} == {
        "yard/gate-09": "rtsp://viewer:p%40ss@10.0.0.9/s",
        "yard/gate-10": "rtsp://viewer:p%40ss@10.0.0.10/s",
        "yard/gate-11": "rtsp://viewer:p%40ss@10.0.0.11/s",
    }


def test_defaults_apply_to_unset_options_and_sources_are_merged_with_theirs() -> None:
    defaults = {"fps": 5, "source": {"hang_s": 3, "login": {"file": "cameras.login"}, "rotate": 90}}
    own = {"name": "door", "fps": 1, "source": {"address": "rtsp://10.0.0.2/live", "hang_s": 7}}
    film = {"name": "film", "source": {"file": "clip.mp4"}}
    found = listed({"defaults": defaults, "cameras": [GATE, own, film]})
    gate, door, clip = (found[CameraId(f"yard/{name}")].settings for name in ("gate", "door", "film"))
    assert (gate.fps, gate.source.hang_s, door.fps, door.source.hang_s) == (5, 3, 1, 7)
    assert door.source.login is not None
    assert door.source.login.file == FOLDER / "cameras.login"
    assert (clip.source.kind, clip.source.file, clip.source.rotate, clip.source.login) == (
        "video",
        FOLDER / "clip.mp4",
        90,
        None,
    )
    assert gate.probe_share == 0.05
    assert gate.profile == "video"


def test_relative_paths_start_at_the_files_folder_also_when_given_as_an_address() -> None:
    film = {"name": "film", "source": {"address": "street.mp4"}}
    numbers = {"name": "cam-{index}", "count": 2, "source": {"file": "films/{index}.mkv"}}
    explicit = {"name": "explicit", "source": {"kind": "url", "address": "street.mp4"}}
    away = [
        {"name": name, "source": {"address": place}}
        for name, place in (("a", "/films/x.mp4"), ("b", "/dev/video0"), ("c", "udp:10.0.0.1"), ("d", "rtsp://h/x"))
    ]
    found = {
        name.partition("/")[2]: camera for name, camera in listed({"cameras": [film, numbers, explicit, *away]}).items()
    }
    files = {name: found[name].settings.source.file for name in ("film", "cam-0", "cam-1", "a")}
    assert files == {
        "film": FOLDER / "street.mp4", "cam-0": FOLDER / "films/0.mkv", "cam-1": FOLDER / "films/1.mkv",
        "a": Path("/films/x.mp4"),
    }  # fmt: skip
    assert [address(found[name]) for name in ("explicit", "b", "c", "d")] == [
        str(FOLDER / "street.mp4"), "/dev/video0", "udp:10.0.0.1", "rtsp://h/x",
    ]  # fmt: skip


def test_an_unreadable_folder_of_an_enrolment_fails_only_its_own_camera(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", closed)
    (found,) = listed({"cameras": [{**GATE, "enrolment": "closed/gate.enrolment"}]}).values()
    assert found.enrolment == FOLDER / "closed/gate.enrolment"


def test_loop_in_the_defaults_applies_to_files_and_is_rejected_if_no_source_uses_it() -> None:
    defaults = {"source": {"loop": True}}
    film = {"name": "film", "source": {"address": "street.mp4"}}
    looping = {
        name: camera.settings.source.loop
        for name, camera in listed({"defaults": defaults, "cameras": [film, GATE]}).items()
    }
    assert looping == {"yard/film": True, "yard/gate": False}
    for key in ("loop", "hnag_s"):
        with pytest.raises(
            ConfigError, match=rf"defaults\.source\.{key}: expected a key that .* takes, .* kind url, got"
        ):
            listed({"defaults": {"source": {key: True}}, "cameras": [GATE]})


def test_an_address_in_the_defaults_leaves_cameras_with_a_file_alone() -> None:
    defaults = {"source": {"address": "rtsp://10.0.0.{index}/s"}}
    films = [
        {"name": "film", "source": {"file": "clip.mp4"}},
        {"name": "tape", "source": {"address": "tape.mp4"}},
        {"name": "door"},
    ]
    found = listed({"defaults": defaults, "cameras": films})
    kinds = {name: each.settings.source.kind for name, each in found.items()}
    assert kinds == {"yard/film": "video", "yard/tape": "video", "yard/door": "url"}


def test_a_variable_in_the_path_of_a_file_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIP", "a")
    found = listed({"cameras": [{"name": "film", "source": {"address": "/srv/${CLIP}.mp4"}}]})
    assert found[CameraId("yard/film")].settings.source.file == Path("/srv/a.mp4")


def test_a_camera_does_not_depend_on_the_other_listed_cameras() -> None:
    door = {"name": "door", "source": {"address": "rtsp://10.0.0.2/live"}}
    name = CameraId("yard/door")
    assert listed({"cameras": [GATE, door]})[name] == listed({"cameras": [door]})[name]


def test_a_tilde_is_expanded_in_the_path_of_an_enrolment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (own,) = listed({"cameras": [{**GATE, "enrolment": "~/{camera}.pem"}]}).values()
    (common,) = listed({"enrolments": "~/keys", "cameras": [GATE]}).values()
    assert [own.enrolment, common.enrolment] == [tmp_path / "gate.pem", tmp_path / "keys" / "gate.enrolment"]


def test_enrolments_are_found_next_to_the_file_in_its_folder_or_at_the_cameras_own_path(tmp_path: Path) -> None:
    two = {**GATE, "name": "gate-{index}", "count": 2, "first": 1}
    values = {
        "site": "yard",
        "enrolments": "keys",
        "cameras": [two, {**GATE, "name": "own", "enrolment": "{camera}.pem"}],
    }
    (tmp_path / "keys" / "yard").mkdir(parents=True)
    (tmp_path / "keys" / "yard" / "gate-2.enrolment").touch()
    (tmp_path / "cameras.yaml").write_text(yaml.safe_dump(values))
    found = load_camera_file(tmp_path / "cameras.yaml")
    assert [camera.enrolment for camera in found.values()] == [
        tmp_path / "keys" / "gate-1.enrolment",
        tmp_path / "keys" / "yard" / "gate-2.enrolment",
        tmp_path / "own.pem",
    ]
    assert listed({"cameras": [GATE]})[CameraId("yard/gate")].enrolment is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "cameras: expected a value, got none"),
        ({"cameras": []}, "cameras: "),
        ({"cameras": [{"name": "gate"}]}, "cameras.0.source"),
        ({"cameras": [{**GATE, "fsp": 3}]}, "cameras.0.fsp: unknown key; expected one of .*fps"),
        ({"cameras": [{**GATE, "fps": -1}]}, "cameras.0.fps: expected at least 0, got -1$"),
        ({"cameras": [GATE, GATE]}, "expected one camera yard/gate, got two"),
        ({"cameras": [{**GATE, "name": "Gate"}]}, "camera: expected site/camera"),
        ({"cameras": [GATE], "defaults": {"fsp": 3}}, "defaults.fsp: unknown key; expected one of .*fps"),
        (
            {"cameras": [GATE], "defaults": {"video": {"codec": "av1", "max_bytes_per_second": 9000}}},
            ": defaults: video: expected max_bytes_per_second with the codec h264 only, got av1",
        ),
        ({"cameras": [{**GATE, "source": {"kind": "scene"}}]}, "expected url or video, got scene"),
        ({"cameras": [{**GATE, "schedule": ["always"]}]}, "cameras.0.schedule: expected hours as 'mon-fri"),
        ({"cameras": [{**GATE, "motion": {"levels": 0}}]}, "cameras.0.motion.levels: expected more than 0, got 0$"),
        ({"cameras": [{**GATE, "motion": {"level": 1}}]}, "motion.level: unknown key; expected one of heartbeat_s"),
        ({"cameras": [{**GATE, "source": {"address": "rtsp://h/x", "login": {}}}]}, "either file or variable"),
        (
            {"cameras": [{**GATE, "source": {"address": "rtsp://h/x", "rotate": 45}}]},
            "rotate: expected 0, 90, 180 or 270, got 45$",
        ),
        ({"cameras": [{**GATE, "source": {"address": "rtsp://h/x", "privacy": [[0.5, 0, 0.6, 1]]}}]}, "inside the pic"),
        ({"cameras": [{**GATE, "source": {"address": "rtsp://${NOT_SET}@h/x"}}]}, r"cameras.0.source.address: .*NOT_S"),
        (
            {"cameras": [{**GATE, "source": {"address": "rtsp://h/x", "privacy": [[0, 0, 30, 100]]}}]},
            "source.privacy.0.2: expected a share of the picture from 0 to 1, got 30$",
        ),
        (
            {"cameras": [{**GATE, "source": "rtsp://h/x"}]},
            'cameras.0.source: expected a table, such as {address: "rtsp://…"}, got text\\. Correct it\\.$',
        ),
        ({"cameras": [{**GATE, "source": {"address": "rtsp://h/x", "kind": "vido"}}]}, "source.kind: .* got 'vido'$"),
        ({"cameras": [{**GATE, "source": {"address": "rtsp://h/x", "loop": 3}}]}, "expected true or false, got 3$"),
        ({"cameras": [{**GATE, "source": {"address": ["x"]}}]}, "source.address: expected text, got a list$"),
        ({"cameras": [{**GATE, "motion": True}]}, "cameras.0.motion: expected a table, got true$"),
        ({"cameras": [GATE], "sites": "a"}, "sites: unknown key; expected one of cameras, defaults, enrolments, site"),
    ],
)  # fmt: skip
def test_an_invalid_value_is_named_with_its_position_and_the_expected_form(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        listed(values)
    assert str(caught.value).startswith("cameras.yaml: ")
    assert "\n" not in str(caught.value)


def test_no_error_repeats_an_address() -> None:
    for source in ("rtsp://u:hidden@h/x", {"address": ["rtsp://u:hidden@h/x"]}, {"rtsp://u:hidden@h/x": 1}):
        with pytest.raises(ConfigError) as caught:
            listed({"cameras": [{"name": "gate", "source": source}], "defaults": {"source": {}}})
        assert "hidden" not in str(caught.value)
    both = {"address": "rtsp://u:hidden@h/x", "login": {"variable": "L"}}
    with pytest.raises(ConfigError, match="got both") as caught:
        listed({"cameras": [{"name": "gate", "source": both}]})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "expected the keys site and cameras, got an empty file. Correct the file."),
        ([], "expected the keys site and cameras, got a list. Correct the file."),
        ({"site": "yard", "cameras": ["door"]}, "cameras.0: expected a table, got 'door'"),
        ({"site": "yard", "cameras": 3}, "cameras: expected a list, got 3"),
    ],
)
def test_a_document_of_another_form_is_rejected_in_one_line(document: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_camera_file(document, Path(), "cameras.yaml")
    assert str(caught.value) == f"cameras.yaml: {message}"


CAMERA = """\
site: yard
cameras:
  - name: hall
    source:
      address: rtsp://hall.example/live
      privacy: [[0, 0, 0.3, 1]]
"""


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ("      privacy: [[0.7, 0, 0.3, 1]]\n", "line 7, column 7: expected YAML, got the key privacy twice"),
        ("cameras:\n  - {name: door, source: {address: a.mp4}}\n", "line 7, column 1: .* the key cameras twice"),
        ('"site": north\n', "line 7, column 1: .* the key site twice"),
    ],
)
def test_a_key_that_a_file_has_twice_is_rejected(tmp_path: Path, more: str, place: str) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(CAMERA)
    [camera] = load_camera_file(file).values()
    assert list(camera.settings.source.privacy) == [(0, 0, 0.3, 1)]
    file.write_text(CAMERA + more)
    with pytest.raises(ConfigError, match=place):
        load_camera_file(file)


@pytest.mark.parametrize(("first", "number"), [("021", 21), ("019", 19), ("1_000", 1000), ("0x10", 16), ("+7", 7)])
def test_a_number_with_leading_zeros_is_decimal(tmp_path: Path, first: str, number: int) -> None:
    file = tmp_path / "cameras.yaml"
    group = f"{{name: 'gate-{{index}}', first: {first}, source: {{address: 'rtsp://192.168.0.{{index}}/live'}}}}"
    file.write_text(f"site: yard\ncameras:\n  - {group}\n")
    assert list(load_camera_file(file)) == [f"yard/gate-{number}"]


def test_merged_keys_may_be_replaced(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(
        "site: yard\ncameras:\n  - &hall {name: hall, fps: 1, source: {address: a.mp4}}\n  - {<<: *hall, name: door}\n"
    )
    assert [(name, each.settings.fps) for name, each in load_camera_file(file).items()] == [
        ("yard/hall", 1), ("yard/door", 1)
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["2024-02-30", "!!int x", "9" * 5000, "[" * 3000])
def test_a_value_that_yaml_cannot_represent_is_rejected_in_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "cameras.yaml").write_text(f"site: yard\ninstalled: {value}\ncameras: []\n")
    with pytest.raises(ConfigError, match="expected YAML") as caught:
        read_yaml(tmp_path / "cameras.yaml", "cameras")
    assert len(str(caught.value).splitlines()) == 1


def test_the_home_folder_of_an_unknown_user_is_rejected() -> None:
    with pytest.raises(ConfigError, match="expected a user with a home folder, got '~nobody-here"):
        listed({"cameras": [{"name": "gate", "source": {"file": "~nobody-here/x.mp4"}}]})
