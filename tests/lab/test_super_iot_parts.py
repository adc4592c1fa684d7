"""Parts of the SUPER-IoT experiment: cached steps, comparisons, drops, sizes and tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lab.cache import Arrays, Cache
from lab.experiments.super_iot.algorithm import blocks_of_frame, descend, mean_psnr, traced
from lab.experiments.super_iot.compare import Setting, against_paper, at_clean_accuracy, matched
from lab.experiments.super_iot.defences import product
from lab.experiments.super_iot.plan import CLEAN, PAPER_ROWS
from lab.experiments.super_iot.published import REQUIREMENTS
from lab.experiments.super_iot.rows import Comparison, Row, SizeRow
from lab.experiments.super_iot.sizes import JPEG, JPEG_WITHOUT_TABLES, LOSSY, WHOLE, decoded, encoded, packed_bytes
from lab.experiments.super_iot.tables import at_equal_accuracy, bytes_for, comparisons_with_baselines, share
from lab.experiments.super_iot.verdict import compared, findings
from lab.results.csv_rows import read_rows, write_rows
from lab.statistics import wilson
from processors.stages.denoise import denoise
from processors.stages.paper import fill_blocks
from schemas.errors import ConfigError
from tests.lab.colour_classifier import coloured_pictures

PGD = next(row for row in PAPER_ROWS if row.id == "pgd-targeted")


def test_a_finished_step_is_not_repeated_until_its_inputs_change(tmp_path: Path) -> None:
    made = []

    def make() -> Arrays:
        made.append(1)
        return {"numbers": np.arange(len(made) * 3)}

    cache = Cache(tmp_path)
    first, again = (cache.get("a/b", "v1", make)["numbers"] for _ in range(2))
    assert (len(made), first.tolist()) == (1, again.tolist())
    assert len(cache.get("a/b", "v2", make)["numbers"]) == 6
    (tmp_path / "a" / "b.npz").write_bytes(b"cut off")
    assert len(cache.get("a/b", "v2", make)["numbers"]) == 9
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.npz"]


def test_a_failed_step_leaves_no_file(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        Cache(tmp_path).get("a", "v1", fail)
    assert not list(tmp_path.iterdir())


def pattern(shares: float, count: int = 100) -> NDArray[np.bool_]:
    """Return the answers of one repeat in which the first pictures are right."""
    return (np.arange(count) < round(shares * count))[None]


def setting(name: str, ratio: float | None, clean: float, attacked: float) -> Setting:
    return Setting(name, ratio, {CLEAN: pattern(clean), PGD: pattern(attacked)})


BARE = setting("none", None, 1.0, 0.0)
OURS = [setting("default", 0.25, 0.96, 0.80), setting("default", 0.5, 0.90, 0.86)]


@pytest.mark.parametrize(
    ("clean", "ratio", "attacked"), [(0.93, 0.375, 0.83), (0.98, 0.125, 0.40), (0.90, 0.5, 0.86), (0.70, 0.5, 0.86)]
)
def test_the_default_is_compared_at_the_ratio_with_the_same_clean_accuracy(
    clean: float, ratio: float, attacked: float
) -> None:
    mixture = at_clean_accuracy(clean, BARE, OURS)
    assert mixture.ratio == pytest.approx(ratio)
    assert mixture.share(PGD).mean() == pytest.approx(attacked)
    assert mixture.share(CLEAN).mean() == pytest.approx(max(clean, 0.90))


def test_a_baseline_that_is_better_at_equal_clean_accuracy_is_reported() -> None:
    strong, weak = setting("Strong (1)", None, 0.93, 0.95), setting("Weak (1)", None, 0.93, 0.6)
    found = matched("judge", BARE, OURS, [strong, weak], [CLEAN, PGD])
    assert [(c.against, c.verdict) for c in found] == [("Strong (1)", "below"), ("Weak (1)", "above")]
    assert found[0].difference == pytest.approx(0.83 - 0.95)
    verdict = compared(found, "matched")
    assert not verdict.holds
    assert verdict.below == (found[0],)


def test_an_interval_has_a_width_if_a_baseline_is_never_right_or_wrong_alone() -> None:
    (found,) = matched("judge", BARE, OURS, [setting("Strong (1)", None, 0.93, 0.95)], [PGD])
    level = replace(found, difference=0.0, ci_low=0.0, ci_high=0.0)
    assert "[+0.000, +0.000]" not in comparisons_with_baselines([level])
    assert f"[{found.ci_low:+.3f}, {found.ci_high:+.3f}]" in comparisons_with_baselines([found])


def test_paper_mode_is_compared_at_the_same_drop_ratio_alone() -> None:
    paper = [setting("paper", 0.25, 0.80, 0.80), setting("paper", 0.5, 0.5, 0.6)]
    found = against_paper("judge", OURS, paper, [CLEAN, PGD])
    assert [(c.r, c.attack, c.verdict) for c in found] == [
        (0.25, "clean", "above"), (0.25, "pgd", "level"), (0.5, "clean", "above"), (0.5, "pgd", "above"),
    ]  # fmt: skip
    assert compared(found, "paper").holds
    assert not compared([], "paper").holds


@pytest.mark.parametrize(("mode", "empty"), [("default", False), ("paper", True)])
def test_paper_mode_draws_uniform_masks_like_the_paper(mode: str, empty: bool) -> None:
    masks: list[torch.Tensor] = []

    def rebuild(frames: torch.Tensor, kept: torch.Tensor, denoised: bool = True) -> torch.Tensor:
        masks.append(kept)
        return frames

    pipeline: Any = SimpleNamespace(mode=mode, denoise=SimpleNamespace(sigma=0.01), rebuild=rebuild)
    defence = product(pipeline, 0.25, 1)

    defence.repair(torch.rand(8, 3, 64, 64), torch.Generator().manual_seed(0))

    (kept,) = masks
    blocks = kept.unfold(2, 8, 8).unfold(3, 8, 8).sum((4, 5))
    assert blocks.eq(48).all(), "each block loses a quarter"
    # At r = .25, spread masks keep a pixel in every 2×2 cell. Uniform masks drop all pixels of one cell in 349.
    cells = kept.unfold(2, 2, 2).unfold(3, 2, 2).sum((4, 5))
    assert bool(cells.eq(0).any()) == empty


def test_paper_mode_denoises_by_both_of_the_papers_methods() -> None:
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 0.06 + 0.5

    def rebuild(frames: torch.Tensor, kept: torch.Tensor, denoised: bool = True) -> torch.Tensor:
        assert not denoised
        return whole

    whole, pipeline = frames, SimpleNamespace(mode="paper", denoise=SimpleNamespace(sigma=0.01), rebuild=rebuild)
    found = product(pipeline, 0.25, 1).repair(frames, torch.Generator().manual_seed(0))  # type: ignore[arg-type]  # a part

    assert not found.equal(denoise(frames, "bayes", 0.01))
    assert found.equal(denoise(denoise(frames, "visu", 0.01), "bayes", 0.01))


def test_the_traced_algorithm_equals_the_live_one() -> None:
    rng = np.random.default_rng(4)
    frame = np.clip(np.cumsum(rng.normal(0, 0.05, (16, 16)), axis=1) + 0.5, 0, 1)
    kept = rng.random((16, 16)) > 0.3
    blocks, holes = blocks_of_frame(frame), blocks_of_frame(~kept)
    ours = np.stack([descend(b, h, iterations=25)[0] for b, h in zip(blocks, holes, strict=True)])
    columns = torch.from_numpy(blocks.reshape(4, 64).T.copy()), torch.from_numpy(holes.reshape(4, 64).T.copy())
    np.testing.assert_allclose(ours.reshape(4, 64).T, fill_blocks(*columns, iterations=25).numpy(), atol=1e-10)
    rounds = traced(frame, kept, 25)
    assert len(rounds) == 25
    assert rounds[-1].error == pytest.approx(((ours - blocks) ** 2).mean())
    assert rounds[-1].error < rounds[0].error
    assert mean_psnr([frame], [kept], 0.03, 0.02) > mean_psnr([frame], [kept], 0.03, 0.02, iterations=2)


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "judge": "j", "scope": "sweep", "attack": "pgd", "label": "PGD .01", "targeted": True, "rounded": True,
        "defence": "default", "r": 0.25, "repeats": 10, "n": 100, "accuracy": 0.8, "ci_low": 0.75, "ci_high": 0.85,
        "undefended": 0.0, "restored": 0.79, "restored_low": 0.7, "restored_high": 0.9, "l_inf": 0.01176, "l2": 0.5,
        "psnr": None,
    }  # fmt: skip
    return Row(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


@pytest.mark.parametrize(
    ("right", "shown"), [(0, ".000 ±.194"), (8, ".500 ±.220"), (15, ".938 ±.221"), (16, "1.000 ±.194")]
)
def test_no_end_of_the_interval_of_a_share_lies_beyond_its_margin(right: int, shown: str) -> None:
    assert share(*wilson(right, 16)) == shown


def test_rows_are_read_from_csv_as_written(tmp_path: Path) -> None:
    rows = [row(), row(r=None, defence="JPEG (q = 75)", targeted=False, restored=None)]
    write_rows(tmp_path / "rows.csv", rows, Row)
    assert read_rows(tmp_path / "rows.csv", Row) == rows
    assert read_rows(tmp_path / "absent.csv", Row) == []
    with pytest.raises(ConfigError, match="expected the columns"):
        read_rows(tmp_path / "rows.csv", Comparison)


def test_requirements_are_judged_by_the_row_with_the_most_pictures() -> None:
    found = {
        (f.requirement.what, f.requirement.attack, f.requirement.targeted, f.requirement.r): f
        for f in findings(
            "j", [row(accuracy=0.5), row(scope="all", n=9000, undefended=0.6), row(targeted=False, accuracy=0.2)]
        )
    }
    assert len(found) == len(REQUIREMENTS)
    quarter = found["accuracy", "pgd", True, 0.25]
    assert (quarter.measured, quarter.n, quarter.verdict) == (0.8, 9000, "must")
    restored = found["restored", "pgd", True, 0.25]
    assert (restored.n, restored.verdict) == (3600, "must")  # the pictures that the attack breaks
    assert found["accuracy", "pgd", False, 0.25].verdict == "missed"
    assert found["accuracy", "pgd", True, 0.5].verdict == "not measured"


PICTURE = coloured_pictures(1, size=32).images[0]


@pytest.mark.parametrize("encoding", LOSSY)
def test_a_higher_quality_has_more_bytes_and_a_smaller_error(encoding: str) -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert len(encoded(noisy, encoding, 90)) > len(encoded(noisy, encoding, 20))
    if encoding != JPEG_WITHOUT_TABLES:
        error = [np.abs(decoded(encoded(PICTURE, encoding, q), 3).astype(int) - PICTURE).mean() for q in (95, 5)]
        assert error[0] < error[1]


def test_a_jpeg_without_tables_lacks_only_its_tables() -> None:
    whole, rest = encoded(PICTURE, JPEG, 75), encoded(PICTURE, JPEG_WITHOUT_TABLES, 75)
    assert b"\xff\xdb" in whole
    assert b"\xff\xdb" not in rest
    assert whole.endswith(rest[-20:])


@pytest.mark.parametrize("encoding", WHOLE)
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_encodings_are_exact(encoding: str, channels: int) -> None:
    picture = PICTURE[..., :channels]
    np.testing.assert_array_equal(decoded(encoded(picture, encoding), channels), picture)


def test_packed_bytes_count_the_kept_pixels() -> None:
    images = coloured_pictures(4, size=32).images
    assert packed_bytes(images, 0.25, "raw", 0) == 32 * 32 * 3 * 0.75
    assert packed_bytes(images, 0.25, "lossless", 0) < 32 * 32 * 3 * 0.75


def size(encoding: str, setting: float, count: float, accuracy: float | None) -> SizeRow:
    return SizeRow("pictures", encoding, setting, 100, count, 3072, "j", accuracy)


def test_bytes_at_equal_accuracy_are_interpolated_and_the_smallest_encoding_is_named() -> None:
    rows = [
        size("JPEG", 20, 400, 0.6), size("JPEG", 80, 1600, 0.8), size("WebP", 50, 300, 0.5),
        size("lossless", 0.25, 1500, 0.7), size("lossless", 0.5, 350, 0.55), size("raw", 0.5, 1536, None),
        size("PNG", 0, 2000, 0.85),
    ]  # fmt: skip
    assert bytes_for(0.7, rows, "JPEG") == pytest.approx(800)
    assert bytes_for(0.5, rows, "JPEG") == 400
    assert bytes_for(0.9, rows, "JPEG") is None
    lines = at_equal_accuracy(rows).splitlines()[2:]
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in lines] == [
        ["0.25", ".700", "1500", "800", "never reaches it", "2000", "JPEG"],
        ["0.50", ".550", "350", "400", "never reaches it", "2000", "ours"],
    ]
