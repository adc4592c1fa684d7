"""`pointillist lab super-iot` on a few pictures and a judge that takes no time."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from infra.cli import main
from lab.experiments.super_iot import judges, run
from processors.stages.learned import shipped_restorer
from tests.lab.colour_judge import coloured, save, write_bundle


def super_iot(*arguments: object, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["pointillist", "lab", "super-iot", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def shipped_weights() -> Path:
    return Path(str(files("bundles"))) / "restorer" / "weights.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `out` and `runs` of one whole run."""
    place = tmp_path_factory.mktemp("super-iot")
    pictures = save(place / "data.npz", coloured(14, lead=2))
    first = write_bundle(place / "first")
    second = write_bundle(place / "second", name="others")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "STEP_SIZES", (0.02, 0.03))
        # Other weights come without a gain of their own: so that the same weights are the same defence.
        patch.setattr(shipped_restorer(torch.device("cpu")), "kept_gain", 1.0)
        patch.setattr(run, "TRACED_PICTURES", 1)
        patch.delenv("POINTILLIST_DATA", raising=False)
        status = super_iot(
            "--data", pictures, "--bundle", first, "--bundle", second, "--out", place / "out", "--runs", place / "runs",
            "--images", 12, "--sweep-images", 8, "--repeats", 2, "--paper-repeats", 1, "--attack", "fgsm",
            "--attack", "l2pgd", "--eot-samples", 2, "--eot-steps", 2, "--other-images", 5, "--other-repeats", 1,
            "--weights-without-attack", shipped_weights(), monkeypatch=patch,
        )  # fmt: skip
    assert status == 0
    return place


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_row_is_measured_behind_every_defence(finished: Path) -> None:
    rows = table(finished / "out" / "colours.csv")
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


def test_an_attack_that_succeeds_shows_in_the_bare_column_and_its_bounds(finished: Path) -> None:
    rows = table(finished / "out" / "colours.csv")
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


def test_the_default_with_the_weights_it_ships_is_the_default(finished: Path) -> None:
    rows = table(finished / "out" / "colours.csv")
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


def test_the_report_says_what_holds_and_names_every_plot_there_is(finished: Path) -> None:
    out = finished / "out"
    page = (out / "README.md").read_text()
    assert "nowhere below paper mode" in page
    assert "at matched clean accuracy nowhere below the best baseline" in page
    plots = {file.name for file in out.glob("*.png")}
    assert plots == {"figure-3.png", "figure-4.png", "figure-5.png", "figure-6.png", "bytes.png"}
    assert all(f"({name})" in page for name in plots)
    for judge in ("colours", "others"):
        assert "Table II" in (out / f"{judge}.md").read_text()
        assert {row["kind"] for row in table(out / f"{judge}-comparisons.csv")} == {"paper", "matched"}
    settings = json.loads((out / "settings.json").read_text())
    assert settings["judges"]["others"]["plan"]["images"] == 5
    assert settings["judges"]["colours"]["correct"] == 14


def test_the_adaptive_attacker_meets_fresh_masks_and_the_worst_of_them(finished: Path) -> None:
    rows = table(finished / "out" / "colours-adaptive.csv")
    assert len(rows) == 4
    for mean, worst in zip(rows[::2], rows[1::2], strict=True):
        assert float(worst["accuracy"]) <= float(mean["accuracy"])
        assert float(mean["l_inf"]) <= 3 / 255 + 1e-6


def test_psnr_and_bytes_are_counted(finished: Path) -> None:
    quality = table(finished / "out" / "psnr.csv")
    assert len(quality) == 12
    sizes = table(finished / "out" / "bytes.csv")
    assert {row["encoding"] for row in sizes} >= {"lossless", "raw", "JPEG", "WebP", "PNG"}
    (quarter,) = [row for row in sizes if (row["encoding"], row["setting"]) == ("raw", "0.25")]
    assert float(quarter["bytes"]) == 16 * 16 * 3 * 0.75


def test_an_interrupted_run_goes_on_without_attacking_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*arguments: object) -> None:
        raise AssertionError("attacked again")

    monkeypatch.setattr(judges, "_attack", forbidden)
    monkeypatch.delenv("POINTILLIST_DATA", raising=False)
    shutil.copytree(finished / "out", tmp_path / "out")
    before = (tmp_path / "out" / "colours.csv").read_text()
    (tmp_path / "out" / "colours.csv").unlink()
    super_iot(
        "--data", finished / "data.npz", "--bundle", finished / "first", "--out", tmp_path / "out",
        "--runs", finished / "runs", "--images", 12, "--sweep-images", 8, "--repeats", 2, "--paper-repeats", 1,
        "--attack", "fgsm", "--attack", "l2pgd", "--weights-without-attack", shipped_weights(), "--part", "tables",
        monkeypatch=monkeypatch,
    )  # fmt: skip
    assert (tmp_path / "out" / "colours.csv").read_text() == before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--part", "dessert"), "--part: expected attacks or tables"),
        (("--attack", "storm"), "--attack: expected clean or fgsm"),
        (("--bundle", "absent"), "no shipped bundle 'absent'"),
        (("--bundle", "scene", "--bundle", "scene"), "distinct names"),
        (("--bundle", "scene", "--weights-without-attack", __file__), "expected weights of the learned"),
        (("--bundle", "scene", "--weights-without-attack", "absent"), "No such file"),
    ],
)
def test_wrong_options_are_refused(
    options: tuple[str, ...],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pictures = save(tmp_path / "data.npz", coloured(3))
    status = super_iot("--data", pictures, "--out", tmp_path / "out", *options, monkeypatch=monkeypatch)
    assert status == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
