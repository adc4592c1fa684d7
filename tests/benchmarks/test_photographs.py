"""A network on photographs: labels from folders and names, and accuracy and agreement behind the drop."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.models.photographs import page, photographs, rows
from processors.bundle import Bundle, load_bundle, shipped_bundle
from producers.scene.simulator import SceneSimulator
from schemas.errors import ConfigError

SIDE = 160


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(shipped_bundle("scene"), torch.device("cpu"))


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    for number in range(3):
        picture, label = SceneSimulator(7, number, (SIDE, SIDE)).render(0)
        place = tmp_path / bundle.settings.classes[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(picture).save(place / f"scene_{number}_{label}.png")
    return tmp_path


def test_labels_come_from_folders_or_names(folder: Path, bundle: Bundle) -> None:
    classes = bundle.settings.classes
    by_folder, by_name, without = (
        [each.label for each in photographs(folder, kind, classes)] for kind in ("folder", "name", "none")
    )
    assert by_folder == by_name
    assert min(by_folder) >= 0
    assert without == [-1] * 3
    next(iter(folder.rglob("*.png"))).rename(folder / "scene_0_99.png")
    with pytest.raises(ConfigError, match="expected a class by name or number"):
        list(photographs(folder, "name", classes))
    with pytest.raises(ConfigError, match="expected pictures"):
        list(photographs(folder / "missing", "none", classes))


def test_accuracy_compares_with_labels_and_agreement_with_the_bare_network(folder: Path, bundle: Bundle) -> None:
    shown = list(photographs(folder, "folder", bundle.settings.classes))
    found = rows("scenes", bundle, shown, 2)
    assert {(row.figure, row.profile, row.drop) for row in found} == {
        (figure, profile, drop)
        for figure in ("accuracy", "agreement")
        for profile, drop in [("bare", 0.0), *((each, drop) for each in ("raw", "video") for drop in (0.25, 0.5, 0.75))]
    }
    usual = next(row for row in found if row.profile == "video" and row.drop == 0.25)
    assert usual.share.value == usual.over_bare == usual.over_raw == 1
    other = (shown[0].label + 1) % len(bundle.settings.classes)
    wrong = rows("scenes", bundle, [each._replace(label=other) for each in shown[:1]], 1)
    assert next(row for row in wrong if row.figure == "accuracy").share.value == 0
    assert next(row for row in wrong if row.figure == "agreement").share.value == 1
    result = {"command": "x", "about": "", "network": "scene", "repeats": 2, "rows": [asdict(row) for row in found]}
    assert "| scenes | 3 | accuracy | `video` | 0.25 | 1.000 [" in page(result)
    assert [row.figure for row in rows("scenes", bundle, [shown[0]._replace(label=-1)], 1)] == ["agreement"] * 7
