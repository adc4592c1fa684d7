"""A CUDA device that is lost ends the process: no frame becomes a dead letter for it, and no model is rejected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prometheus_client import CollectorRegistry

from processors import service
from processors.device import loaded_model, lost_device
from processors.device.batch_executor import BatchExecutor
from processors.device.loaded_model import load_model
from processors.device.lost_device import DeviceLostError, lost_device_raised
from processors.metrics import ProcessorMetrics
from processors.settings import ProcessorSettings
from schemas.errors import RestartRequired
from schemas.runtime.health import Health
from tests.processors.tiny import KEYS, batch_executor, payload, tiny_bundle, verified_job, write_bundle

CUDA = torch.device("cuda")
FAULT = "CUDA error: an illegal memory access was encountered"
LOST = f"cuda: expected a device that computes, got {FAULT}"


@pytest.fixture(autouse=True)
def another_process() -> Iterator[None]:
    """Let the next test run in a process with a device."""
    yield
    lost_device._lost.clear()


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each computation that tries the device fail."""
    monkeypatch.setattr(lost_device, "_failure_of", lambda _: RuntimeError(FAULT))


@pytest.fixture
def intact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each computation that tries the device succeed."""
    monkeypatch.setattr(lost_device, "_failure_of", lambda _: None)


def fail(*_: object, **__: object) -> Any:
    raise torch.AcceleratorError(FAULT)


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchExecutor:
    """Return an executor on a stand-in for CUDA."""
    made = batch_executor(tiny_bundle(tmp_path / "bundle"))
    monkeypatch.setattr(made, "_device", CUDA)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    return made


def classify(executor: BatchExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_attempt", fail)
    executor.classify([verified_job(payload("site/cam-0", 1))])


def check(executor: BatchExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_attempt_strip", fail)
    executor.strip([verified_job(payload("site/cam-0", 1))])


def certify(executor: BatchExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_undecoded", fail)
    executor.certify(verified_job(payload("site/cam-0", 1)))


def show(executor: BatchExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    with executor._optional("preview", []):
        fail()


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize("work", [classify, check, certify, show])
def test_an_error_that_destroys_the_device_is_no_fault_of_a_frame(
    executor: BatchExecutor,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[BatchExecutor, pytest.MonkeyPatch], None],
) -> None:
    with pytest.raises(DeviceLostError, match=LOST):
        work(executor, monkeypatch)


@pytest.mark.usefixtures("lost")
async def test_an_error_that_destroys_the_device_is_no_fault_of_a_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_model, "choose_device", lambda _: CUDA)
    monkeypatch.setattr(loaded_model, "load_bundle", fail)
    bundle = write_bundle(tmp_path / "bundle")
    settings = ProcessorSettings(kafka="none", bundle=bundle)
    with pytest.raises(DeviceLostError, match=LOST):
        await load_model(settings, ProcessorMetrics(CollectorRegistry()), bundle)


@pytest.mark.usefixtures("intact")
def test_a_frame_fails_alone_if_the_device_still_computes(
    executor: BatchExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_attempt", fail)
    job = verified_job(payload("site/cam-0", 1))
    executor.classify([job])
    assert FAULT in str(job.error)


@pytest.mark.usefixtures("lost")
@pytest.mark.parametrize(
    ("device", "error"), [(torch.device("cpu"), RuntimeError(FAULT)), (CUDA, torch.OutOfMemoryError("out of memory"))]
)
def test_an_error_of_memory_or_of_a_cpu_is_raised_as_it_is(device: torch.device, error: RuntimeError) -> None:
    with pytest.raises(RuntimeError) as found, lost_device_raised(device):
        raise error
    assert found.value is error


def test_a_device_is_lost_if_it_computes_nothing() -> None:
    assert lost_device._failure_of(torch.device("cpu")) is None
    assert lost_device._failure_of(torch.device("meta")) is not None  # it has no values


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_device_that_lacks_memory_is_not_lost(monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    def lack_memory(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "zeros", lack_memory)
    assert lost_device._failure_of(torch.device("cpu")) is None


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_lost_device_ends_the_role_with_a_request_for_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool
) -> None:
    lost = DeviceLostError("the device")
    raised = BaseExceptionGroup("tasks", [BaseExceptionGroup("tasks", [lost])]) if grouped else lost

    async def run(*_: object) -> None:
        raise raised

    async def first_model(*_: object) -> object:
        return object()

    monkeypatch.setattr(service, "first_model", first_model)
    monkeypatch.setattr(service, "_Service", lambda *_: SimpleNamespace(run=run))
    settings = ProcessorSettings(kafka="127.0.0.1:1", bundle=tmp_path)
    with pytest.raises(RestartRequired, match="the device"):
        await service.run_processor(settings, KEYS, registry=CollectorRegistry(), health=Health(), stop=asyncio.Event())
