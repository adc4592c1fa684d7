"""The experiment on pixel drop, with a few pictures and fast networks."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
import torch

from lab.experiments.harness.plan import Plan, Workplace
from lab.experiments.harness.store import Store
from lab.experiments.super_iot import experiment, judges, outcomes
from lab.experiments.super_iot.defences import read_weights
from lab.experiments.super_iot.experiment import Setup
from lab.experiments.super_iot.plan import Budget
from processors.stages.learned import shipped_restorer
from schemas.errors import ConfigError
from tests.lab.colour_classifier import coloured_pictures, save_pictures, write_bundle


def shipped_weights() -> Path:
    return Path(str(files("bundles"))) / "restorer" / "weights.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `out` and `runs` of all cells."""
    place = tmp_path_factory.mktemp("super-iot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "STEP_SIZES", (0.02, 0.03))
        # Weights from a file have no gain, so the shipped restorer gets none either: the two defences are then equal.
        patch.setattr(shipped_restorer(torch.device("cpu")), "kept_gain", 1.0)
        patch.setattr(experiment, "TRACED_PICTURES", 1)
        plan = planned(place)
        for cell in plan.cells:
            plan.measure(cell, "pointillist lab stale --only super-iot --run")
        plan.write_page()
    return place


def planned(place: Path) -> Plan:
    """Return a plan with two networks and few pictures."""
    data = place / "data.npz"
    if not data.is_file():
        save_pictures(data, coloured_pictures(14, lead=2))
        write_bundle(place / "first")
        write_bundle(place / "second", name="others")
    budget = Budget(
        images=12, sweep_images=8, repeats=2, paper_repeats=1, attacks=("fgsm", "l2pgd"), eot_samples=2, eot_steps=2
    )
    other_budget = budget.smaller(images=5, repeats=1, slow_images=200)
    setup = Setup((place / "first", place / "second"), budget, other_budget, data, weights=shipped_weights())
    return experiment.plan(Workplace(place / "out", place / "runs"), setup)


def table(place: Path, name: str, judge: str = "colours") -> list[dict[str, str]]:
    rows = Store(place / "out" / "super-iot").texts(name)
    return [row for row in rows if row.get("judge", judge) in (judge, "")]


def test_every_row_is_measured_behind_every_defence(finished: Path) -> None:
    rows = table(finished, "accuracy")
    attacks = {(row["attack"], row["targeted"]) for row in rows}
    assert attacks == {("clean", "False")} | {(key, way) for key in ("fgsm", "l2pgd") for way in ("True", "False")}
    swept = [row for row in rows if (row["scope"], row["attack"], row["targeted"]) == ("sweep", "fgsm", "True")]
    rounded = [row for row in swept if row["rounded"] == "True"]
    assert {row["defence"] for row in rounded} >= {
        "none", "default", "paper", "Shield", "Feature Distillation", "Pixel Deflection", "JPEG",
    }  # fmt: skip
    assert len([row for row in rounded if row["defence"] == "default"]) == 9
    assert {row["n"] for row in swept} == {"8"}
    assert {row["repeats"] for row in rounded if row["defence"] == "default"} == {"2"}
    whole = [row for row in rows if row["scope"] == "all"]
    assert {row["n"] for row in whole} == {"12"}
    assert {row["attack"] for row in whole} == {"clean", "fgsm"}
    assert {row["r"] for row in whole} == {"", "0.25", "0.5"}


def test_a_successful_attack_has_its_bound_and_the_undefended_accuracy(finished: Path) -> None:
    rows = table(finished, "accuracy")
    (bare,) = [
        row
        for row in rows
        if (row["scope"], row["attack"], row["targeted"], row["rounded"], row["defence"])
        == ("sweep", "fgsm", "False", "False", "none")
    ]
    assert float(bare["l_inf"]) == pytest.approx(0.005, rel=1e-3)
    assert float(bare["accuracy"]) == float(bare["undefended"])
    clean = [row for row in rows if row["attack"] == "clean" and row["defence"] == "none"]
    assert {row["accuracy"] for row in clean} == {"1"}
    assert {row["restored"] for row in clean} == {""}


def test_the_default_with_its_shipped_weights_from_a_file_has_equal_figures(finished: Path) -> None:
    rows = table(finished, "accuracy")
    swept = [row for row in rows if (row["scope"], row["rounded"]) == ("sweep", "True") and row["r"] in ("0.25", "0.5")]
    both = [
        {
            (row["attack"], row["targeted"], row["r"]): (row["accuracy"], row["psnr"])
            for row in swept
            if row["defence"] == d
        }
        for d in ("default", "default trained without attacks")
    ]
    assert len(both[0]) == 2 * 5
    assert both[0] == both[1]


def test_the_adaptive_attacker_is_measured_on_fresh_masks_and_on_the_worst_mask(finished: Path) -> None:
    rows = table(finished, "adaptive")
    assert len(rows) == 4
    for mean, worst in zip(rows[::2], rows[1::2], strict=True):
        assert float(worst["accuracy"]) <= float(mean["accuracy"])
        assert float(mean["l_inf"]) <= 3 / 255 + 1e-6


def test_psnr_and_bytes_are_measured(finished: Path) -> None:
    quality = table(finished, "psnr")
    assert len(quality) == 12
    sizes = table(finished, "bytes")
    assert {row["encoding"] for row in sizes} >= {"lossless", "raw", "JPEG", "WebP", "PNG"}
    (quarter,) = [row for row in sizes if (row["encoding"], row["setting"]) == ("raw", "0.25")]
    assert float(quarter["bytes"]) == 16 * 16 * 3 * 0.75


def test_a_cell_resumes_from_the_cache_without_another_attack(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr(judges, "_attack", forbidden)
    monkeypatch.setattr(outcomes, "_measure", forbidden)
    plan = planned(finished)
    before = plan.store.rows()["colours/fgsm-targeted"].tables
    (cell,) = (cell for cell in plan.cells if cell.name == "colours/fgsm-targeted")
    assert plan.measure(cell, "").tables == before


def test_other_files_than_weights_of_the_restorer_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected weights of the learned"):
        read_weights(Path(__file__), torch.device("cpu"))
    with pytest.raises(ConfigError, match="No such file"):
        read_weights(tmp_path / "absent", torch.device("cpu"))
