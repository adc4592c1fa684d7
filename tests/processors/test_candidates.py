"""The load of a candidate without Kafka: temporary and permanent errors, and a rollout that ends during the load."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from processors.device.candidate import Candidate
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.models import swap
from processors.models.candidates import Candidates, CandidateState
from processors.models.store import PassingBundleError, StoreUnavailableError, UntrustedBundleError
from processors.settings import ProcessorSettings
from schemas.errors import BundleError
from schemas.pointillist_pb2 import CANARY, Model, Models, Rollout
from tests.processors.tiny import fake_model
from tests.waiting import PATIENCE_S, running, until


def listed(begun_ms: int = 5, digest: str = "a") -> Models:
    return Models(rollout=Rollout(candidate=Model(digest=digest, model_id="new"), begun_ms=begun_ms, slot=CANARY))


class Rig:
    """Candidates with a load that waits for `gate`, and raises `error` if there is one."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.error: BundleError | None = None
        self.loads = 0
        self.serving: list[Candidate | None] = []
        self.losses: list[Model] = []
        self.candidates = Candidates(self.load, self.losses.append, self.serving.append, lambda: None, 7.0)

    async def load(self, model: Model, metrics: ProcessorMetrics) -> LoadedModel:
        self.loads += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        loaded = fake_model(model.digest, model.model_id)
        self.limit = loaded.limit
        return loaded


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    async with running(made.candidates.run()):
        yield made


async def test_a_candidate_of_an_ended_rollout_is_freed_at_once(rig: Rig) -> None:
    rig.gate.set()
    rig.candidates.follow(listed())
    await until(lambda: rig.serving, "a candidate that serves")
    serving = rig.serving.pop()
    assert serving is not None
    freed = weakref.ref(serving.model)
    del serving
    gc.disable()
    try:
        rig.candidates.follow(Models())
        await until(lambda: rig.serving, "no candidate")
        assert freed() is None
    finally:
        gc.enable()


async def test_a_candidate_that_is_withdrawn_while_it_loads_never_serves(rig: Rig) -> None:
    rig.candidates.follow(listed())
    await until(lambda: rig.loads == 1)
    rig.candidates.withdraw(Models())
    rig.gate.set()
    await asyncio.sleep(0.05)  # long enough for a candidate to serve
    assert not any(rig.serving)
    assert rig.candidates.state == CandidateState()


@pytest.mark.parametrize(
    ("error", "retries"),
    [(StoreUnavailableError("away"), True), (UntrustedBundleError("no signer"), True), (BundleError("broken"), False)],
)
async def test_an_error_is_reported_as_temporary_or_permanent(rig: Rig, error: BundleError, retries: bool) -> None:
    rig.error = error
    rig.gate.set()
    rig.candidates.follow(listed())
    await until(lambda: rig.candidates.state.error == str(error))
    assert (rig.candidates.state.retries, rig.candidates.state.begun_ms) == (retries, 5)


async def test_a_rejected_bundle_is_loaded_again_in_a_new_rollout(rig: Rig) -> None:
    rig.error = BundleError("broken")
    rig.gate.set()
    rig.candidates.follow(listed())
    await until(lambda: rig.candidates.state.error == "broken")
    rig.error = None
    rig.candidates.follow(listed(6))
    await until(lambda: any(rig.serving))
    assert (rig.candidates.state.error, rig.candidates.state.begun_ms) == ("", 6)


async def test_a_candidate_that_exceeds_its_time_limit_is_dropped_until_the_next_rollout(rig: Rig) -> None:
    rig.gate.set()
    rig.candidates.follow(listed())
    await until(lambda: rig.serving[-1:] != [] and rig.serving[-1] is not None)
    assert rig.limit.seconds == 7.0
    rig.limit.report("no result")
    assert rig.serving[-1] is None
    assert (rig.candidates.state.error, rig.candidates.state.retries) == ("no result", False)
    rig.candidates.follow(listed())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rig.loads == 1
    rig.candidates.follow(listed(begun_ms=6))
    await until(lambda: rig.loads == 2)


async def test_the_loss_of_the_device_counts_for_the_candidate_whose_work_has_cost_it(rig: Rig) -> None:
    rig.gate.set()
    rig.candidates.follow(listed())
    await until(lambda: any(rig.serving))
    rig.limit.count_loss()
    assert rig.losses == [listed().rollout.candidate]


async def test_a_late_report_on_an_earlier_candidate_does_not_affect_its_successor(rig: Rig) -> None:
    rig.gate.set()
    rig.candidates.follow(listed())
    await until(lambda: rig.candidates.state.digest == "a")
    earlier = rig.limit
    rig.candidates.follow(listed(6, "b"))
    await until(lambda: rig.candidates.state.digest == "b")
    earlier.report("no result")
    assert rig.serving[-1] is not None
    assert rig.candidates.state.error == ""


async def test_a_store_that_hangs_is_a_temporary_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(swap, "fetch_bundle", lambda *_: released.wait(60))
    settings = ProcessorSettings(kafka="none", bundle=tmp_path, model_cache=tmp_path / "cache", model_load_s=0.1)
    loader = swap.ModelLoader(settings, ProcessorMetrics(CollectorRegistry()))
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"expected its files from memory://x within 0\.1 s, got none"):
            await loader.load(Model(model_id="tiny@1+0", location="memory://x", digest="0" * 64))
    waiting = [thread for thread in threading.enumerate() if thread.name == "fetch-bundle"]
    assert [thread.daemon for thread in waiting] == [True]
    released.set()
    waiting[0].join(PATIENCE_S)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
@pytest.mark.parametrize("wraps", [0, 1, 2])
async def test_a_lack_of_memory_is_a_temporary_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, wraps: int
) -> None:
    raised = error
    for _ in range(wraps):
        outer = BundleError("tiny@1+0: expected a network, got an error")
        outer.__cause__, raised = raised, outer

    async def load(*_: object) -> LoadedModel:
        raise raised

    monkeypatch.setattr(swap, "load_model", load)
    loader = swap.ModelLoader(ProcessorSettings(kafka="none", bundle=tmp_path), ProcessorMetrics(CollectorRegistry()))
    with pytest.raises(PassingBundleError, match="expected enough memory for the bundle, got too little"):
        await loader.load(None)


@pytest.mark.parametrize("error", [BundleError("broken"), RuntimeError("broken"), SystemExit("broken")])
@pytest.mark.parametrize("own_cause", [False, True])
async def test_any_other_error_of_a_load_is_permanent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, own_cause: bool
) -> None:
    async def load(*_: object) -> LoadedModel:
        raise error from (error if own_cause else None)

    monkeypatch.setattr(swap, "load_model", load)
    loader = swap.ModelLoader(ProcessorSettings(kafka="none", bundle=tmp_path), ProcessorMetrics(CollectorRegistry()))
    with pytest.raises(BundleError, match="broken") as found:
        await loader.load(None)
    assert not isinstance(found.value, PassingBundleError)


async def test_a_fetch_that_writes_during_the_shutdown_does_not_make_it_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    def be_unavailable(*_: object) -> Path:
        raise StoreUnavailableError("away")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(swap, "fetch_bundle", be_unavailable)
    loader = swap.ModelLoader(ProcessorSettings(kafka="none", bundle=tmp_path), ProcessorMetrics(CollectorRegistry()))
    with pytest.raises(StoreUnavailableError):
        await loader.load(Model(model_id="tiny@1+0", location="memory://x", digest="0" * 64))
    assert list(tmp_path.glob("pointillist-models-*"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", fail)  # as if the fetch had written another file
        loader.close()
