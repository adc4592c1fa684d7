"""The choice of the device's arithmetic."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import Tensor, nn

from processors.bundle import Bundle
from processors.device import precision as precision_module
from processors.device.precision import _Switch, arithmetic, choose_precision, verdicts_hold
from processors.pipeline import Pipeline
from processors.stages.modes import DenoiseSettings
from schemas.errors import ConfigError
from tests.processors.tiny import tiny_bundle

CPU = torch.device("cpu")


class Judge(nn.Module):
    """A network that returns class 0 if a frame's mean is above `border`, and rounds the mean like numbers near 10."""

    def __init__(self, border: float) -> None:
        super().__init__()
        self.mean = nn.Conv2d(3, 1, 32)
        nn.init.constant_(self.mean.weight, 1 / (3 * 32 * 32))
        nn.init.constant_(self.mean.bias, 10.0)  # type: ignore[arg-type]  # there is one
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        above = self.mean(x).flatten(1) - 10 - self.border
        return torch.cat((above, -above), 1)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path)


def pipeline(bundle: Bundle, border: float) -> Pipeline:
    object.__setattr__(bundle, "network", Judge(border).eval())
    return Pipeline(bundle, "plate", DenoiseSettings(sigma=0))


def test_bf16_is_accepted_if_no_frame_is_near_the_border(bundle: Bundle) -> None:
    assert verdicts_hold(pipeline(bundle, -20.0), "bf16")


def test_bf16_is_rejected_if_it_changes_verdicts(bundle: Bundle) -> None:
    assert not verdicts_hold(pipeline(bundle, 0.0), "bf16", tolerance=float("inf"))


def test_bf16_is_rejected_if_logits_change_too_much(bundle: Bundle) -> None:
    steady = pipeline(bundle, -20.0)
    assert not verdicts_hold(steady, "bf16", tolerance=1e-9)
    assert verdicts_hold(steady, "float32", tolerance=1e-9)


def test_a_cpu_computes_in_float32(bundle: Bundle) -> None:
    assert choose_precision(Pipeline(bundle)) == "float32"


def test_the_arithmetic_ends_with_its_block() -> None:
    weights = torch.rand(4, 4)
    with arithmetic(CPU, "bf16"):
        assert (weights @ weights).dtype == torch.bfloat16
    assert (weights @ weights).dtype == torch.float32


def test_threads_share_one_tf32_setting_and_a_thread_with_the_other_one_waits() -> None:
    switch, entered = _Switch(), threading.Event()

    def exact() -> bool:
        with switch.be(False):
            entered.set()
            return bool(torch.backends.cuda.matmul.allow_tf32)

    def coarse() -> bool:
        with switch.be(True):
            return bool(torch.backends.cuda.matmul.allow_tf32)

    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with ThreadPoolExecutor(2) as threads:
        with switch.be(True):
            assert threads.submit(coarse).result(60)
            waiting = threads.submit(exact)
            assert not entered.wait(0.1)
            assert torch.backends.cuda.matmul.allow_tf32
        assert not waiting.result(60)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_tf32_setting_is_restored() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    with arithmetic(torch.device("cuda"), "float32"):
        assert not torch.backends.cudnn.allow_tf32
    with arithmetic(torch.device("cuda"), "tf32"):
        assert torch.backends.cuda.matmul.allow_tf32
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == before


ON_GPU: Any = SimpleNamespace(bundle=SimpleNamespace(device=torch.device("cuda")))


@pytest.mark.parametrize(
    ("has_bf16", "holding", "chosen"),
    [
        (True, {"bf16", "tf32"}, "bf16"), (True, {"tf32"}, "tf32"), (True, set(), "float32"),
        (False, {"bf16", "tf32"}, "tf32"),
    ],
)  # fmt: skip
def test_a_gpu_uses_the_fastest_arithmetic_that_keeps_the_verdicts(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, holding: set[str], chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    monkeypatch.setattr(precision_module, "verdicts_hold", lambda _, candidate: candidate in holding)
    assert choose_precision(ON_GPU) == chosen


def test_an_arithmetic_in_which_a_network_cannot_run_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    def verdicts_hold(_: object, candidate: str) -> bool:
        if candidate == "bf16":
            raise RuntimeError("not implemented for 'BFloat16'")
        return True

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(precision_module, "verdicts_hold", verdicts_hold)
    with capture_logs() as logs:
        assert choose_precision(ON_GPU) == "tf32"
    assert [(each["event"], each["precision"]) for each in logs] == [("precision_rejected", "bf16")]


def test_a_gpu_uses_the_requested_precision_or_rejects_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert choose_precision(ON_GPU, "tf32") == "tf32"
    with pytest.raises(ConfigError, match=r"^precision: expected float32, tf32 on this GPU, got bf16\."):
        choose_precision(ON_GPU, "bf16")
