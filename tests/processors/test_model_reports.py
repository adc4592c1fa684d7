"""A processor's reports on its live model and its candidate while the other one loads, without Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from processors.device.candidate import Candidate
from processors.device.loaded_model import LoadedModel
from processors.metrics import ProcessorMetrics
from processors.models.feed import ModelFeed
from processors.models.swap import ModelLoader, ModelSwap
from processors.results.delivery import Emitter
from processors.results.records import OutgoingRecord
from processors.settings import ProcessorSettings
from schemas.errors import BundleError
from schemas.pointillist_pb2 import CANARY, Model, Models, Rollout, ServedModel
from schemas.runtime.health import Health
from tests.processors.tiny import fake_model
from tests.waiting import PATIENCE_S, running, until

NEW = Rollout(candidate=Model(digest="new", model_id="new"), begun_ms=5, slot=CANARY)


class Rig:
    """A model swap whose loads wait for `gates` and fail with `errors`, both by digest."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, Exception] = {}
        self.loading: set[str] = set()
        self.candidate: Candidate | None = None
        self.reports: list[ServedModel] = []
        self.feed: Any = SimpleNamespace(models=Models(), changed=asyncio.Event(), exists=True, refused=None, found=1)
        self.swap = ModelSwap(
            ProcessorSettings(kafka="none", bundle=Path("own")),
            cast(ModelFeed, self.feed),
            cast(ModelLoader, self),
            fake_model("", ""),
            lambda loaded: None,
            self.switch_candidate,
            cast(Emitter, self),
            ProcessorMetrics(CollectorRegistry()),
            Health(),
        )

    def switch_candidate(self, candidate: Candidate | None) -> None:
        self.candidate = candidate

    async def load(self, model: Model | None, metrics: ProcessorMetrics | None = None) -> LoadedModel:
        digest = model.digest if model is not None else ""
        self.loading.add(digest)
        if digest in self.gates:
            await self.gates[digest].wait()
        if digest in self.errors:
            raise self.errors[digest]
        return fake_model(digest, digest)

    def count_loss(self, model: Model) -> None:
        raise AssertionError("no model loses its device here")

    async def send(self, topic: str, records: Sequence[OutgoingRecord]) -> None:
        self.reports += [ServedModel.FromString(record.value or b"") for record in records]

    def list(self, models: Models) -> None:
        self.feed.models = models
        self.feed.changed.set()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    async with running(made.swap.run()):
        yield made


async def test_a_live_model_that_fails_to_load_stays_reported_while_candidates_change(rig: Rig) -> None:
    live = Model(digest="live", model_id="live")
    rig.errors["live"] = BundleError("broken")
    rig.list(Models(published=[live], rollout=NEW))
    await until(lambda: rig.candidate, "a candidate that serves")
    await until(lambda: rig.reports and rig.reports[-1].candidate_digest == "new", "a report on it")
    assert (rig.reports[-1].refused_digest, rig.reports[-1].error) == ("live", "broken")


async def test_a_withdrawn_candidate_judges_no_frame_while_another_live_model_loads(rig: Rig) -> None:
    rig.list(Models(rollout=NEW))
    await until(lambda: rig.candidate, "a candidate that serves")
    live = Model(digest="live", model_id="live")
    rig.gates["live"] = asyncio.Event()
    rig.list(Models(published=[live], rollout=NEW))
    await until(lambda: "live" in rig.loading, "a load of the live model")
    assert rig.candidate is not None
    rig.list(Models(published=[live]))
    rig.swap.poll()
    assert rig.candidate is None


async def test_an_unexpected_error_in_the_load_of_a_candidate_stops_the_processor() -> None:
    made = Rig()
    made.errors["new"] = RuntimeError("a defect")
    made.list(Models(rollout=NEW))
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(PATIENCE_S):
            await made.swap.run()
    assert raised.group_contains(RuntimeError, match="a defect")


async def test_a_rejected_model_is_loaded_again_when_it_is_published_again(rig: Rig) -> None:
    good, bad = (Model(digest=name, model_id=name, published_ms=1) for name in ("good", "bad"))
    rig.list(Models(published=[good]))
    await until(lambda: rig.swap.loaded.digest == "good", "a live model that serves")
    rig.errors["bad"] = BundleError("changed in the store")
    rig.list(Models(published=[bad, good]))
    await until(lambda: rig.reports[-1].refused_digest == "bad", "a report on its rejection")
    rig.errors["bad"] = BundleError("still changed")
    withdrawn = Model(digest="bad", model_id="bad", published_ms=1, withdrawn_ms=2)
    again = Model(digest="bad", model_id="bad", published_ms=2)
    rig.list(Models(published=[again, withdrawn, good]))
    await until(lambda: rig.reports[-1].error == "still changed", "a report on the second attempt")
    del rig.errors["bad"]
    rig.list(Models(published=[withdrawn, good]))
    await until(lambda: not rig.reports[-1].refused_digest, "a report on the rollback")
    once_more = Model(digest="bad", model_id="bad", published_ms=3)
    rig.list(Models(published=[once_more, withdrawn, good]))
    await until(lambda: rig.swap.loaded.digest == "bad", "the model that was published again")
