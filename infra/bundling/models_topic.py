"""The topic of published models for administrators: the live model, its processors, and its replacement."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import TopicPartition

from schemas.clock import unix_ms
from schemas.errors import BrokerError, BundleError, SecretError, typed_text
from schemas.keys.signers import Signer, TrustedSigners
from schemas.messages.cloudevents import MODELS, event_headers
from schemas.messages.models import LIVE_KEY, live, seal
from schemas.messages.models_records import ModelsRecords
from schemas.messages.rollout import slots
from schemas.pointillist_pb2 import Model, Models, ServedModel, SignedModels
from schemas.topics import PROCESSORS_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress
from schemas.transport.backoff import Backoff
from schemas.transport.kafka.admin import Admin, GroupState
from schemas.transport.kafka.reader import Reader
from schemas.transport.kafka.sender import PlainRecord, Sender

_CALL_S: Final = 10.0
_POLL_S: Final = 0.3
_TRIES: Final = 5
"""Lookups of the topic, `_POLL_S` apart, before it counts as missing: a broker learns of a new topic late."""


class ModelsTopic(ModelsRecords):
    """An asynchronous context manager; every call raises BrokerError when Kafka does not answer or lacks the topic."""

    def __init__(
        self,
        bootstrap: KafkaAddress,
        trusted: TrustedSigners,
        signer: Signer | None = None,
        topic: str = KafkaTopic.MODELS.value,
        group: str = PROCESSORS_GROUP,
    ) -> None:
        """`trusted` verifies lists, and `signer` signs new ones.

        `group` is the processors' consumer group, whose members are those that run.
        """
        super().__init__(lambda: trusted.with_signer(signer))
        self._bootstrap = bootstrap
        self._signer = signer
        self._partition = TopicPartition(topic, 0)
        self._group = group
        self._reader = Reader(bootstrap)

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(_CALL_S):
                await self._reader.open()
                for _ in range(_TRIES):
                    if self._partition.topic in await self._reader.topics():
                        break
                    await asyncio.sleep(_POLL_S)
                else:
                    raise BrokerError(
                        f"Kafka at {self._bootstrap}: expected the topic {self._partition.topic} and the right to read "
                        "it, got none. Create it by `pointillist topics`, and connect as `admin`."
                    )
                self._reader.assign([self._partition])
                await self._reader.seek_to_beginning(self._partition)
            await self.refresh()
        except BaseException as error:
            await self._reader.close()
            if isinstance(error, KafkaError | OSError):
                raise self._no_answer(error) from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._reader.close()

    def _no_answer(self, error: Exception) -> BrokerError:
        return BrokerError(
            f"Kafka at {self._bootstrap}: expected a response, got {typed_text(error)}. Start "
            "Kafka, or correct its address."
        )

    async def refresh(self) -> None:
        """Read the new records."""
        try:
            async with asyncio.timeout(_CALL_S):
                async for batch in self._reader.fetch_until(await self._reader.ends([self._partition])):
                    for record in batch.get(self._partition, ()):
                        self.apply_record(record.key or b"", record.value)
        except (KafkaError, OSError) as error:
            raise self._no_answer(error) from error

    async def running(self) -> set[str]:
        """Return the names of the running processors: members of the group that have not announced their end.

        The group keeps the place of a member with a fixed name for a while after it has ended. A processor without any
        state yet runs all the same.
        """
        try:
            async with asyncio.timeout(_CALL_S), Admin(self._bootstrap, _CALL_S) as admin:
                state = await self._state(admin)
        except (KafkaError, OSError) as error:
            raise self._no_answer(error) from error
        return set(state.members) - self.gone

    async def _state(self, admin: Admin) -> GroupState:
        backoff = Backoff()
        while True:
            try:
                return await admin.group(self._group)
            except GroupCoordinatorNotAvailableError:
                # The first request about any group makes Kafka create the topic of their offsets.
                await backoff.wait()

    async def write(self, models: Models) -> None:
        """Replace the list of models. Raises SecretError without a signer."""
        if self._signer is None:
            raise SecretError("signer is missing: expected a signer's private key. Give --signer FILE.")
        signed = Models()
        signed.CopyFrom(models)
        signed.changed_ms = max(unix_ms(), self.listed.changed_ms + 1)
        sender = Sender(self._bootstrap)
        headers = event_headers(MODELS, SignedModels, f"models/{time.time_ns()}")
        try:
            async with asyncio.timeout(_CALL_S):
                # The topic has one partition.
                record = PlainRecord(LIVE_KEY, seal(signed, self._signer), headers)
                await sender.send(self._partition.topic, [record], once=True)
        except (KafkaError, OSError) as error:
            raise self._no_answer(error) from error
        finally:
            await sender.close()
        self._rollout.listed = signed

    async def require(self, topic: str) -> None:
        """Raise BrokerError unless Kafka has this topic."""
        try:
            async with asyncio.timeout(_CALL_S):
                found = await self._reader.topics()
        except (KafkaError, OSError) as error:
            raise self._no_answer(error) from error
        if topic not in found:
            raise BrokerError(
                f"Kafka at {self._bootstrap}: expected the topic {topic}, got none. Create it by `pointillist topics`."
            )

    async def wait(self, deadline_s: float) -> tuple[set[str], dict[str, str], set[str]]:
        """Wait until every running processor serves the live model or rejects it.

        Returns (serving, rejected with reasons, no answer by the deadline).
        """
        model = live(self.models)
        digest = model.digest if model is not None else ""

        def error_of(served: ServedModel) -> str:
            refuses = served.error and served.refused_digest == digest
            return f"{served.error}; it serves {served.model_id}" if refuses else ""

        return await self._wait(deadline_s, lambda served: served.digest == digest, error_of)

    async def wait_for_candidate(self, deadline_s: float) -> tuple[set[str], dict[str, str], set[str]]:
        """Wait until every running processor has loaded the candidate or rejects it; see `wait`."""
        rollout = slots(self.models).rollout
        name = (rollout.candidate.digest, rollout.begun_ms) if rollout is not None else ("", 0)

        def holds(served: ServedModel) -> bool:
            return (served.candidate_digest, served.candidate_begun_ms) == name

        return await self._wait(deadline_s, holds, lambda served: served.candidate_error if holds(served) else "")

    async def _wait(
        self, deadline_s: float, holds: Callable[[ServedModel], bool], error_of: Callable[[ServedModel], str]
    ) -> tuple[set[str], dict[str, str], set[str]]:
        end_s = time.monotonic() + deadline_s
        while True:
            await self.refresh()
            running = await self.running()
            reports = {name: self.served[name] for name in running if name in self.served}
            refuse = {name: error for name, served in reports.items() if (error := error_of(served))}
            serve = {name for name, served in reports.items() if name not in refuse and holds(served)}
            silent = running - serve - refuse.keys()
            if not silent or time.monotonic() >= end_s:
                return serve, refuse, silent
            await asyncio.sleep(_POLL_S)


def check_successor(model: Model, before: Model, *, other_classes: bool = False) -> None:
    """Raise BundleError when `model` drops its predecessor's trigger watch, or its classes without `other_classes`."""
    if not other_classes and list(model.classes) != list(before.classes):
        raise BundleError(
            f"bundle: expected the classes of the live model {before.model_id} in their order, "
            f"{_shown(before)}, got {_shown(model)}. Give --other-classes to replace them."
        )
    if before.strip and not model.strip:
        raise BundleError(
            f"bundle: expected overlays and a threshold for STRIP, as in the live model {before.model_id}, "
            "got none. Run `pointillist bundle calibrate DIR --images PICTURES`, or give --force to publish it all the "
            "same."
        )


def _shown(model: Model) -> str:
    names = list(model.classes)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
