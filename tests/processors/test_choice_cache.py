"""The cache of chosen backends: a cached choice is checked and not measured again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from processors.device.backends import choice_cache as cache_module
from processors.device.backends import choose as module
from processors.device.backends.choice_cache import key_of, open_cache
from processors.device.backends.choose import BackendChoice, BackendRequest, choose
from processors.device.backends.contract import CpuPrecision, UnsupportedNetworkError
from processors.device.backends.openvino_cpu import OpenVino
from schemas.errors import BundleError
from tests.processors.test_backends import ALL, FakeBackend, within

INPUTS = torch.linspace(0, 1, 4 * 3 * 8 * 8).reshape(4, 3, 8, 8)
needs_openvino = pytest.mark.skipif(bool(OpenVino().lacks()), reason="needs OpenVINO")


class Weighted(nn.Module):
    """A network with logits (B, 2), which its weights identify in the cache."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight, -weight]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] * self.weight


class Trials:
    """A stand-in for the trial that counts its calls; OpenVINO is faster than torch."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, networks: list[object], inputs: Tensor) -> list[float]:
        self.count += 1
        return [1.0, 0.5, 0.9][: len(networks)]


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    made = Trials()
    monkeypatch.setattr(module, "BACKENDS", (FakeBackend(ALL),))
    monkeypatch.setattr(module, "trial", made)
    return made


def chosen(folder: Path, network: nn.Module | None = None, request: BackendRequest | None = None) -> BackendChoice:
    return choose(network or Weighted(), INPUTS, request or BackendRequest(), fits=within, cache=open_cache(folder))


def test_a_cached_choice_is_not_measured_again(tmp_path: Path, trials: Trials) -> None:
    first, again = chosen(tmp_path), chosen(tmp_path)
    assert trials.count == 1
    assert str(first) == str(again) == "openvino float32"
    assert again.speedup == first.speedup == 2.0
    assert torch.equal(again.network(INPUTS), first.network(INPUTS))


def test_another_network_request_or_version_is_measured(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(tmp_path)
    chosen(tmp_path, Weighted(1.01))
    chosen(tmp_path, request=BackendRequest(precision="float32"))
    assert trials.count == 3
    monkeypatch.setattr(cache_module, "machine_state", lambda: "another processor")
    chosen(tmp_path)
    assert trials.count == 4


def test_a_cached_model_that_gives_other_outputs_is_measured_again(tmp_path: Path, trials: Trials) -> None:
    chosen(tmp_path)
    (model,) = tmp_path.glob("*/*/model.xml")
    model.write_text("2.0")
    assert torch.allclose(chosen(tmp_path).network(INPUTS), Weighted()(INPUTS))
    assert trials.count == 2


@pytest.mark.parametrize("content", ["", "[]", '{"backend": "openvino", "precision": "fp4", "speedup": 1}'])
def test_an_unreadable_entry_is_replaced(tmp_path: Path, trials: Trials, content: str) -> None:
    chosen(tmp_path)
    (entry,) = tmp_path.glob("*/*/choice.json")
    entry.write_text(content)
    assert str(chosen(tmp_path)) == str(chosen(tmp_path)) == "openvino float32"
    assert trials.count == 2


def raises(error: Exception) -> Callable[..., Any]:
    """Return a function of any arguments that raises the error."""

    def fails(*_: object) -> None:
        raise error

    return fails


@pytest.mark.parametrize(
    "restore",
    [
        raises(UnsupportedNetworkError("another version")),
        raises(RuntimeError("a broken graph")),
        lambda *_: raises(RuntimeError("no such kernel")),
    ],
    ids=["unsupported", "broken", "fails at inference"],
)
def test_a_cached_model_that_does_not_run_is_measured_again(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch, restore: Callable[..., Any]
) -> None:
    chosen(tmp_path)
    monkeypatch.setattr(FakeBackend, "restore", restore)
    assert str(chosen(tmp_path)) == "openvino float32"
    assert trials.count == 2


def test_a_cached_model_whose_comparison_fails_is_measured_again(tmp_path: Path, trials: Trials) -> None:
    faults = [BundleError("the calibration: expected int8 to keep the classes")]

    def fits(exact: Tensor, got: Tensor, precision: CpuPrecision) -> str:
        if trials.count and faults:
            raise faults.pop()
        return within(exact, got, precision)

    for _ in range(2):
        found = choose(Weighted(), INPUTS, BackendRequest(), fits=fits, cache=open_cache(tmp_path))
        assert str(found) == "openvino float32"
    assert (trials.count, faults) == (2, [])


def test_a_cached_choice_of_torch_is_ignored_if_another_backend_is_requested(tmp_path: Path, trials: Trials) -> None:
    request = BackendRequest(backend="openvino", precision="float32")
    chosen(tmp_path, request=request)
    (entry,) = tmp_path.glob("*/*/choice.json")
    entry.write_text('{"backend": "torch", "precision": "float32", "speedup": 1}')
    assert str(chosen(tmp_path, request=request)) == "openvino float32"


@pytest.mark.parametrize("age_s", [cache_module.LASTS_S - 3600, cache_module.LASTS_S + 3600])
def test_a_cache_entry_expires_after_thirty_days(tmp_path: Path, trials: Trials, age_s: float) -> None:
    chosen(tmp_path)
    (entry,) = tmp_path.glob("*/*/choice.json")
    os.utime(entry, (time.time() - age_s,) * 2)
    chosen(tmp_path)
    assert trials.count == (2 if age_s > cache_module.LASTS_S else 1)


def test_a_change_of_the_backends_code_causes_a_new_measurement(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.setattr(cache_module, "_CODE", code)
    for tolerance in ("1e-3", "1e-3", "1e-4"):
        (code / "engines.py").write_text(f"TOLERANCE = {tolerance}")
        chosen(tmp_path / "cache")
    assert trials.count == 2


def test_the_cache_is_private(tmp_path: Path, trials: Trials) -> None:
    before = os.umask(0o002)
    try:
        chosen(tmp_path)
        chosen(tmp_path)
    finally:
        os.umask(before)
    assert trials.count == 1
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("which", ["choices-1", "choices-1/*", "choices-1/*/model.xml", "choices-1/*/choice.json"])
@pytest.mark.parametrize("how", ["writable", "foreign"])
def test_a_folder_or_entry_that_other_users_may_write_is_not_used(
    tmp_path: Path, trials: Trials, which: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen(tmp_path)
    (path,) = tmp_path.glob(which)
    if how == "writable":
        path.chmod(path.stat().st_mode | 0o020)
    elif os.geteuid() == 0:
        os.chown(path, 65534, -1)
    else:
        pytest.skip("only root may give a file away")
    capsys.readouterr()
    assert str(chosen(tmp_path)) == "openvino float32"
    assert trials.count == 2
    assert capsys.readouterr().out.count("expected a file or folder that only the user") == 1


def test_a_folder_that_cannot_be_written_does_not_prevent_the_choice(tmp_path: Path, trials: Trials) -> None:
    (tmp_path / "file").touch()
    assert str(chosen(tmp_path / "file")) == "openvino float32"
    assert trials.count == 1


def test_the_least_recently_used_entries_are_removed(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "MOST_BYTES", 150)
    for weight in (1.0, 1.01, 1.02, 1.03):
        chosen(tmp_path, Weighted(weight))
    kept = list(tmp_path.glob("*/*"))
    assert 0 < len(kept) < 4
    chosen(tmp_path, Weighted(1.03))
    assert trials.count == 4


def test_the_cache_removes_only_its_own_entries(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen(tmp_path)
    (entry,) = tmp_path.glob("*/*")
    foreign = [tmp_path / "photos", tmp_path / ("0" * 32), entry.with_name("photos"), entry.with_name("1" * 32)]
    for folder in foreign:
        folder.mkdir()
        (folder / "photo.jpg").write_bytes(bytes(1000))
        os.utime(folder, (0, 0))
    entry.with_name("notes.txt").touch()
    monkeypatch.setattr(cache_module, "MOST_BYTES", 1)
    capsys.readouterr()
    chosen(tmp_path, Weighted(1.01))
    assert not entry.exists()
    assert all((folder / "photo.jpg").exists() for folder in foreign)
    assert entry.with_name("notes.txt").exists()
    assert "not_" not in capsys.readouterr().out


def test_the_scratch_folder_of_a_killed_process_is_removed_after_an_hour(tmp_path: Path, trials: Trials) -> None:
    chosen(tmp_path)
    old, fresh = (tmp_path / "choices-1" / f".scratch-{name}" for name in ("old", "fresh"))
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (time.time() - 3700,) * 2)
    chosen(tmp_path, Weighted(1.01))
    assert not old.exists()
    assert fresh.exists()


def test_an_entry_that_another_process_removes_or_replaces_causes_no_failure(
    tmp_path: Path, trials: Trials, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen(tmp_path)
    (entry,) = tmp_path.glob("*/*")
    rename, remove = Path.rename, shutil.rmtree

    def renamed(self: Path, target: Path) -> Path:
        if self == entry:  # another process writes its own entry after this one has moved the old entry away
            rename(self, target)
            return shutil.copytree(target, entry)
        return rename(self, target)

    def removed(path: Any, *args: Any, **options: Any) -> None:
        remove(path, *args, **options)
        remove(path, *args, **options)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", renamed)
        patch.setattr(FakeBackend, "restore", raises(RuntimeError("broken")))
        chosen(tmp_path)
    assert trials.count == 2
    monkeypatch.setattr(cache_module, "MOST_BYTES", 1)
    monkeypatch.setattr(shutil, "rmtree", removed)
    chosen(tmp_path, Weighted(1.01))
    assert not entry.exists()
    assert "not_" not in capsys.readouterr().out


def test_a_network_without_weights_has_no_key() -> None:
    assert key_of(lambda x: x, (INPUTS,), BackendRequest()) is None


@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_restored_model_of_openvino_gives_the_same_outputs(tmp_path: Path, precision: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    inputs = torch.rand(8, 3, 8, 8)
    converted = OpenVino().convert(network, inputs, free_sides=False)
    compiled = converted.at(precision, inputs)  # type: ignore[arg-type]  # checked by the parameters
    converted.save(precision, tmp_path / "model.xml")  # type: ignore[arg-type]  # see above
    restored = OpenVino().restore(tmp_path / "model.xml", precision)  # type: ignore[arg-type]  # see above
    assert torch.allclose(restored(inputs), compiled(inputs), atol=1e-5)


@needs_openvino
def test_a_choice_of_openvino_comes_from_the_cache_with_the_same_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
    found = []
    for trial in (lambda networks, _: [1.0, 0.5][: len(networks)], raises(AssertionError("measured again"))):
        monkeypatch.setattr(module, "trial", trial)
        found.append(
            choose(
                network,
                INPUTS,
                BackendRequest(precision="float32"),
                fits=within,
                allowed=("float32",),
                cache=open_cache(tmp_path),
            )
        )
    first, again = found
    assert str(first) == str(again) == "openvino float32"
    assert torch.equal(again.network(INPUTS), first.network(INPUTS))
