"""A bundle that ends processes is given up after three of them, until it is published again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from processors.device.lost_device import DeviceLostError
from processors.metrics import ProcessorMetrics
from processors.models import fatal_loads, swap
from processors.models.fatal_loads import MOST, count_loss, fatal_loads_counted
from processors.models.swap import ModelLoader
from processors.settings import ProcessorSettings
from schemas.errors import BundleError
from schemas.pointillist_pb2 import Model

HEAVY = Model(model_id="heavy@1+0123456789ab", digest="1", published_ms=1)
KILLED = """
import os
from pathlib import Path
import sys
from processors.models.fatal_loads import fatal_loads_counted
from schemas.pointillist_pb2 import Model
model = Model.FromString(bytes.fromhex(sys.argv[3]))
for _ in range(int(sys.argv[4])):
    child = os.fork()
    if not child:
        with fatal_loads_counted(Path(sys.argv[1]), sys.argv[2], model):
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
"""
"""Processes that end while they load a model. They are forked, as their imports would take seconds each."""


class Loader(ModelLoader):
    """A loader whose store answers at once."""

    def __init__(self, cache: Path, processor: str | None) -> None:
        settings = ProcessorSettings(kafka="none:1", model_cache=cache, instance=processor)
        super().__init__(settings, ProcessorMetrics(CollectorRegistry()))

    async def _fetched(self, model: Model, ends_at: float) -> Path:
        return Path("fetched")


def kill_loads(cache: Path, processor: str, times: int) -> None:
    """Let processes end while they load `HEAVY`."""
    command = [sys.executable, "-c", KILLED, str(cache), processor, HEAVY.SerializeToString().hex(), str(times)]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list, to which each load that begins adds its digest."""
    begun = []

    async def load_model(settings: object, metrics: object, folder: Path, digest: str) -> Any:
        begun.append(digest)
        return SimpleNamespace(executor=SimpleNamespace(), model_id=HEAVY.model_id, close=lambda: None)

    monkeypatch.setattr(swap, "load_model", load_model)
    return begun


async def test_a_bundle_that_ended_three_processes_is_rejected_until_it_is_published_again(
    tmp_path: Path, loads: list[str]
) -> None:
    loader = Loader(tmp_path, "processor-1")
    kill_loads(tmp_path, "processor-1", MOST)
    with pytest.raises(BundleError, match=rf"{MOST} processes in succession ended while they loaded it"):
        await loader.load(HEAVY)
    assert not loads
    await Loader(tmp_path, "processor-2").load(HEAVY)
    await loader.load(Model(model_id=HEAVY.model_id, digest=HEAVY.digest, published_ms=2))
    await Loader(tmp_path, None).load(HEAVY)
    assert len(loads) == 3


async def test_a_load_that_succeeds_ends_the_count(tmp_path: Path, loads: list[str]) -> None:
    kill_loads(tmp_path, "processor-1", MOST - 1)
    await Loader(tmp_path, "processor-1").load(HEAVY)
    assert not list(tmp_path.iterdir())


async def test_a_load_that_costs_the_device_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load_model(*_: object) -> None:
        raise DeviceLostError("the device is lost")

    monkeypatch.setattr(swap, "load_model", load_model)
    for _ in range(MOST):
        with pytest.raises(DeviceLostError):
            await Loader(tmp_path, "processor-1").load(HEAVY)
    with pytest.raises(BundleError, match="in succession ended while they loaded it"):
        await Loader(tmp_path, "processor-1").load(HEAVY)


async def test_a_load_that_ends_with_a_device_that_was_lost_meanwhile_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def load_model(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(swap, "load_model", load_model)
    for is_lost, kept in ((False, 0), (True, 1)):
        monkeypatch.setattr(fatal_loads, "is_lost", lambda is_lost=is_lost: is_lost)
        with pytest.raises(asyncio.CancelledError):
            await Loader(tmp_path, "processor-1").load(HEAVY)
        assert len(list(tmp_path.iterdir())) == kept


async def test_a_candidate_that_cost_three_processes_their_device_is_rejected_until_it_is_published_again(
    tmp_path: Path, loads: list[str]
) -> None:
    for _ in range(MOST):
        loader = Loader(tmp_path, "processor-1")
        await loader.load(HEAVY)
        loader.count_loss(HEAVY)
    with pytest.raises(BundleError, match=f"{MOST} processes lost theirs while it judged frames"):
        await Loader(tmp_path, "processor-1").load(HEAVY)
    assert len(loads) == MOST
    await Loader(tmp_path, "processor-1").load(Model(model_id=HEAVY.model_id, digest=HEAVY.digest, published_ms=2))
    await Loader(tmp_path, "processor-2").load(HEAVY)
    Loader(tmp_path, None).count_loss(HEAVY)
    assert len(loads) == MOST + 2


async def test_a_processor_that_stops_in_the_middle_of_a_load_counts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def load_model(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(swap, "load_model", load_model)
    load = asyncio.create_task(Loader(tmp_path, "processor-1").load(HEAVY))
    await begun.wait()
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_stops_no_load(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    count_loss(file, "processor-1", HEAVY)
    with fatal_loads_counted(file, "processor-1", HEAVY):
        pass
