from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from processors.arrivals.frames import TakenFrame
from processors.device.batch_executor import picture_of
from processors.device.loaded_model import LoadedModel, Model
from processors.device.loop import Classification
from processors.device.probes import Probe, StripFinding
from processors.results.delivery import Emitter
from processors.results.records import Outgoing
from processors.results.verdicts import VerdictPublisher
from processors.settings import ProcessorSettings
from schemas.messages.frame import Encoding
from schemas.pointillist_pb2 import CHECKED, Verdict
from tests.processors.tiny import CLASSES, KEYS, payload, picture, taken, verdict_of
from tests.waiting import until

FLAGGED = StripFinding(0.1, 1.0, 4)
LOADED = cast(LoadedModel, SimpleNamespace(model=Model("m@1+0", "resize", CLASSES)))


class FullGpu(torch.Tensor):
    """A tensor on a device without any memory left: whatever would make another one there fails as torch does it."""

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(function, "__name__", "") == "cpu":
            return args[0].as_subclass(torch.Tensor).clone()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")


class Told:
    """In the place of Kafka: keeps what it is sent, and holds it at once."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    async def send(self, topic: str, records: Sequence[Outgoing]) -> None:
        self.verdicts += [verdict_of(record) for record in records]
        for record in records:
            record.done()


def probe(shown: Tensor, seq: int) -> Classification:
    frame = taken(payload("site/cam-0", seq, encoding=Encoding(16)))
    return Classification(frame, LOADED, 0, 0.9, None, Probe(shown), FLAGGED)


async def concluded(ready: Sequence[Classification]) -> list[Verdict]:
    told, recorded = Told(), list[TakenFrame]()
    settings = ProcessorSettings(kafka="none", bundle=Path("none"))
    publisher = VerdictPublisher(settings, KEYS, cast(Emitter, told), recorded.append, lambda _: None)
    try:
        publisher.conclude(ready, [])
        await until(lambda: len(recorded) == len(ready) or publisher.broken.done(), "the verdicts")
    finally:
        await publisher.close()
    if publisher.broken.done():
        publisher.broken.result()
    return told.verdicts


async def test_evidence_needs_no_memory_of_the_device() -> None:
    shown = torch.rand(3, 32, 32)
    (verdict,) = await concluded([probe(shown.as_subclass(FullGpu), 1)])
    assert verdict.flagged
    assert verdict.evidence
    np.testing.assert_array_equal(picture_of(shown.as_subclass(FullGpu)), picture_of(shown))


async def test_a_picture_that_memory_is_short_for_is_left_out_and_no_other() -> None:
    # Four tebibytes of evidence: what torch raises then is real.
    much = torch.zeros(1, 1, 1).expand(1, 2**20, 2**20)
    verdicts = await concluded([probe(torch.rand(3, 32, 32), 1), probe(much, 2), probe(torch.rand(3, 32, 32), 3)])
    assert {verdict.seq: bool(verdict.evidence) for verdict in verdicts} == {1: True, 2: False, 3: True}
    assert all(verdict.strip == CHECKED and verdict.flagged for verdict in verdicts)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error")])
async def test_a_device_that_gives_nothing_back_costs_the_evidence_and_not_the_processor(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(torch.Tensor, "cpu", fails)
    (verdict,) = await concluded([probe(torch.from_numpy(picture(1)).permute(2, 0, 1) / 255, 1)])
    assert verdict.flagged
    assert not verdict.evidence
