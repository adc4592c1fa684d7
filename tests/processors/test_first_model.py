"""A processor's first model: its own while Kafka does not answer, unless a published one has served before."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition
from prometheus_client import CollectorRegistry

from processors.metrics import ProcessorMetrics
from processors.models import swap as module
from processors.models.feed import ModelFeed
from processors.models.store import bundle_files
from processors.models.swap import ModelLoader, first_model
from processors.settings import ProcessorSettings
from schemas import late_counter
from schemas.messages.models import LIVE_KEY, bundle_digest, seal
from schemas.pointillist_pb2 import Model, Models
from schemas.transport.kafka.reader import Reader, Records
from tests.processors.tiny import SIGNER
from tests.producers.spool_rig import refuse

PUBLISHED = "street@2+0123456789ab"


class SilentFeed:
    """A feed whose Kafka does not answer until `answer`."""

    def __init__(self) -> None:
        self.known, self.tried = asyncio.Event(), asyncio.Event()
        self.tried.set()  # the first attempt has failed
        self.models = Models()

    def answer(self) -> None:
        self.models = Models(published=[Model(model_id=PUBLISHED, digest="1")])
        self.known.set()


class Log:
    """A reader of the topic of models that returns one list in each fetch."""

    def __init__(self, lists: list[Models]) -> None:
        self._lists = lists

    def __getattr__(self, name: str) -> Any:
        async def answer(*_: object) -> Any:
            return {"models"}

        return (lambda _: None) if name == "assign" else answer

    async def fetch_until(self, ends: object) -> AsyncIterator[Records]:
        for offset, each in enumerate(self._lists):
            record = SimpleNamespace(key=LIVE_KEY, value=seal(each, SIGNER), offset=offset)
            yield cast(Records, {TopicPartition("models", 0): [record]})


async def test_a_replayed_old_list_is_ignored_at_the_start(tmp_path: Path) -> None:
    trust = tmp_path / "trusted-signers"
    trust.write_text(SIGNER.line("tests") + "\n")
    feed = ModelFeed("none:1", "models", trust, ProcessorMetrics(CollectorRegistry()))
    old, new = Models(changed_ms=1), Models(changed_ms=2)
    await feed._open(cast(Reader, Log([old, new, old])))
    assert feed.models == new


async def test_a_rejected_list_is_reported_and_the_list_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_counter, "AT_ZERO_S", 0)
    trust = tmp_path / "trusted-signers"
    trust.write_text(SIGNER.line("tests") + "\n")
    registry = CollectorRegistry()
    feed = ModelFeed("none:1", "models", trust, ProcessorMetrics(registry))
    await feed._open(cast(Reader, Log([Models(changed_ms=1)])))
    feed.changed.clear()
    trust.write_text("")
    for _ in range(2):  # the second time as after a lost connection
        await feed._open(cast(Reader, Log([Models(changed_ms=1), Models(changed_ms=2)])))
    assert feed.models == Models(changed_ms=1)
    assert feed.refused is not None
    assert "not trusted" in feed.refused.error
    assert feed.changed.is_set()
    assert registry.get_sample_value("pointillist_model_swaps_total", {"outcome": "refused"}) == 2


class Loader(ModelLoader):
    """A loader that loads nothing and returns the name of the model."""

    def __init__(self, cache: Path) -> None:
        settings = ProcessorSettings(kafka="none:1", model_cache=cache)
        super().__init__(settings, ProcessorMetrics(CollectorRegistry()))

    async def load(self, model: Model | None, metrics: ProcessorMetrics | None = None) -> Any:
        return "own" if model is None else model.model_id


def fill_cache(cache: Path) -> Path:
    """Write a published bundle into the cache, and return its folder."""
    fresh = cache / "fresh"
    fresh.mkdir()
    (fresh / "model.toml").touch()
    return fresh.rename(cache / bundle_digest(bundle_files(fresh)))


async def first(feed: SilentFeed, cache: Path) -> Any:
    return await first_model(feed, Loader(cache))  # type: ignore[arg-type]  # it has the attributes that are used


async def test_without_an_earlier_published_model_the_own_model_is_loaded_at_once(tmp_path: Path) -> None:
    assert await first(SilentFeed(), tmp_path / "missing") == "own"
    assert await first(SilentFeed(), tmp_path) == "own"


async def test_an_incomplete_or_unreadable_cache_counts_as_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill_cache(tmp_path)
    (folder / "model.toml").unlink()
    (tmp_path / ".0123.4").mkdir()
    (tmp_path / "notes.txt").touch()
    loader = Loader(tmp_path)
    assert not loader.has_fetched()
    (folder / "model.toml").touch()
    assert loader.has_fetched()
    monkeypatch.setattr(Path, "iterdir", refuse(errno.EACCES))
    assert not loader.has_fetched()


async def test_after_a_published_model_the_processor_waits_for_kafka(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_cache(tmp_path)
    feed = SilentFeed()
    asyncio.get_running_loop().call_later(0.05, feed.answer)
    assert await first(feed, tmp_path) == PUBLISHED
    monkeypatch.setattr(module, "_KNOWN_S", 0.05)
    assert await first(SilentFeed(), tmp_path) == "own"
