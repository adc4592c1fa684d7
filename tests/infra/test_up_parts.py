"""Small parts of `up`: its sources and bundles, background tasks, and descriptions of types."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cameras.identity import _check_key, camera_named
from infra.settings.described import kind_of
from infra.state_folder import Layout
from infra.up.background_task import BackgroundTask
from infra.up.settings import UpSettings, bundle_folder, checks_for_triggers, source_entry
from schemas.errors import ConfigError, SecretError
from schemas.identity import CameraId
from schemas.keys.keys import derive_camera_key
from tests.processors.tiny import write_bundle

DOOR = CameraId("site/door")


def test_a_file_of_pictures_is_divided_among_cameras_and_a_url_is_one_camera(tmp_path: Path) -> None:
    (tmp_path / "pictures.npz").touch()
    pictures = source_entry(str(tmp_path / "pictures.npz"), 3, 2.0, None)
    assert pictures == {"kind": "dataset", "file": str(tmp_path / "pictures.npz"), "stride": 3}
    with pytest.raises(ConfigError, match=r"^--cameras: expected 1 with a URL or device, got 2"):
        source_entry("rtsp://there/1", 2, 2.0, None)


def test_a_bundle_may_be_a_folder(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "own")
    assert bundle_folder(UpSettings(bundle=folder)) == folder.resolve()


def test_the_source_of_the_options_does_not_choose_the_bundle_of_a_scenario(tmp_path: Path) -> None:
    settings = UpSettings(source="cifar10")
    assert bundle_folder(settings).name == "cifar10"
    assert bundle_folder(settings.model_copy(update={"scenario": tmp_path / "street.yaml"})).name == "scene"


def test_an_unreadable_bundle_does_not_fail_the_check_for_strip(tmp_path: Path) -> None:
    assert checks_for_triggers(write_bundle(tmp_path / "own"))
    assert not checks_for_triggers(write_bundle(tmp_path / "plain", overlays=0))
    assert checks_for_triggers(tmp_path / "none")
    (tmp_path / "model.toml").write_text("= broken")
    assert checks_for_triggers(tmp_path)


def test_a_background_task_returns_its_result_or_raises_its_error() -> None:
    successful, failing = BackgroundTask(lambda: 7, "right"), BackgroundTask(lambda: 1 // 0, "wrong")
    assert successful.done(30)
    assert successful.result() == 7
    assert failing.done(30)
    with pytest.raises(ZeroDivisionError):
        failing.result()


def test_a_named_type_has_the_description_of_its_base_type() -> None:
    assert kind_of(CameraId) == kind_of(str) == "text"


def test_a_camera_needs_a_name_and_a_key_of_its_system(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--name: expected SITE/CAMERA, got none"):
        camera_named(None, None, None)
    layout = Layout(tmp_path)
    foreign_key = derive_camera_key(b"another secret of another fleet", DOOR)
    _check_key(layout, foreign_key)  # without a fleet secret no key can be checked
    _check_key(layout, derive_camera_key(layout.fleet_secret(), DOOR))
    with pytest.raises(SecretError, match="expected the key of site/door issued by the system of"):
        _check_key(layout, foreign_key)
