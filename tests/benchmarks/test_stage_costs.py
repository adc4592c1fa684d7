"""The costs of the stages relative to the classifier, and the work of a frame."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed import stages
from benchmarks.speed.device import work_per_frame


def test_the_report_has_both_ratios_and_their_raw_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stages.json"
    monkeypatch.setattr("sys.argv", ["stages", "--batch", "4", "--rounds", "1", "--json", str(path)])
    threads = torch.get_num_threads()
    stages.main()
    torch.set_num_threads(threads)
    report = json.loads(path.read_text())
    (unit,) = report["cpu_s"]["ResNet-20 forward"]
    for key, side in (
        ("default_over_classifier", "reconstruct default"),
        ("paper_over_classifier", "reconstruct paper"),
    ):
        (seconds,) = report["cpu_s"][side]
        assert report[key] == pytest.approx(seconds / unit)


def test_the_work_of_a_frame_counts_the_products_of_its_convolutions() -> None:
    convolution = nn.Conv2d(3, 8, 3, padding=1, bias=False).requires_grad_(False)

    def run(frames: Tensor, kept: Tensor) -> Tensor:
        return convolution(frames * kept).relu()  # type: ignore[no-any-return]  # a module's result

    work = work_per_frame(run, torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16), 4)
    assert work.flops == 2 * 16 * 16 * 8 * 3 * 9
    assert work.bytes == 4 * (16 * 16 * (3 + 8) + 8 * 3 * 9 / 2)
