"""The folder of a new bundle, and a bundle whose calibration is interrupted."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from infra.bundling import strip_table
from infra.bundling.folder import appearing
from infra.bundling.strip_table import LEAST_PICTURES, calibrate_strip
from lab.data import LabelledPictures
from processors.bundle import load_bundle
from schemas.errors import BundleError, ConfigError, StateError
from tests.processors.tiny import picture, write_bundle

CPU = torch.device("cpu")


@pytest.mark.parametrize("out", ["link", ".", "new"])
def test_an_empty_folder_that_cannot_be_replaced_gets_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "empty" if out == "." else tmp_path)
    with appearing(Path(out)) as folder:
        for name in ("model.toml", "network.onnx"):
            (folder / name).write_text(name)
        assert not (Path(out) / "model.toml").exists()
    assert {each.name for each in Path(out).iterdir()} == {"model.toml", "network.onnx"}
    assert {each.name for each in tmp_path.iterdir()} - {"new"} == {"empty", "link"}


def test_a_dangling_link_is_rejected_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nothing")
    raises = pytest.raises(ConfigError, match="expected a folder that is empty or does not exist yet")
    with raises, appearing(tmp_path / "link"):
        pytest.fail("expected an error before any work")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        BundleError("own.onnx: expected a network that can be tried, got OSError: [Errno 28] No space left on device."),
    ],
    ids=["own", "of the child"],
)
def test_the_error_for_a_full_disk_names_the_disk_and_not_the_network(tmp_path: Path, error: Exception) -> None:
    raises = pytest.raises(StateError, match=r"out: expected free space on its disk, got a full disk\.")
    with raises, appearing(tmp_path / "out"):
        raise error
    assert not list(tmp_path.iterdir())


def test_an_interrupted_calibration_keeps_the_former_overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.strip.limits.DRAWS", 50)
    monkeypatch.setattr(strip_table, "write_strip_table", interrupted)
    bundle = load_bundle(write_bundle(tmp_path / "bundle"), CPU)
    images = np.stack([picture(number) for number in range(LEAST_PICTURES)])
    with pytest.raises(KeyboardInterrupt):
        calibrate_strip(tmp_path / "bundle", bundle, LabelledPictures("own", images, np.full(len(images), -1)), 0.01)
    before, after = bundle.overlays, load_bundle(tmp_path / "bundle", CPU).overlays
    assert before is not None
    assert after is not None
    assert after.equal(before)
