"""What each role may do in Kafka, and how Kafka is told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from schemas.errors import BrokerError
from schemas.runtime.access import KafkaAddress, kafka_options
from schemas.runtime.kafka_clients import start
from schemas.topics import PROCESSORS_GROUP, KafkaTopic

SUPER_USERS: Final = ("kafka", "admin")
"""Not asked for rights: the nodes among themselves, and who sets the rights."""
OURS: Final = "pointillist"
"""How the names of all our topics and groups begin."""


class _Resource(IntEnum):
    TOPIC = 2
    GROUP = 3


class _Pattern(IntEnum):
    LITERAL = 3
    PREFIXED = 4


class _Operation(IntEnum):
    READ = 3
    WRITE = 4
    DESCRIBE = 8


_ALLOW: Final = 3
_AGAIN_S: Final = 0.2
_ANY_HOST: Final = "*"


@dataclass(frozen=True)
class Right:
    """One entry of Kafka's list of rights. To read or to write is to describe too."""

    role: str
    resource: _Resource
    name: str
    operation: _Operation
    pattern: _Pattern = _Pattern.LITERAL


def _topics(role: str, operation: _Operation, *topics: KafkaTopic) -> list[Right]:
    return [Right(role, _Resource.TOPIC, topic.value, operation) for topic in topics]


def kafka_rights() -> list[Right]:
    """Every right there is; what is not named is nobody's."""
    read, write, describe = _Operation.READ, _Operation.WRITE, _Operation.DESCRIBE
    frames, events, verdicts = KafkaTopic.FRAMES, KafkaTopic.EVENTS, KafkaTopic.VERDICTS
    alerts, dead, models = KafkaTopic.ALERTS, KafkaTopic.DEAD_LETTERS, KafkaTopic.MODELS
    return [
        # The bridge carries frames in, hears requests to cameras, and looks how far behind the processors are.
        *_topics("bridge", write, frames, events, dead),
        *_topics("bridge", read, events),
        Right("bridge", _Resource.GROUP, PROCESSORS_GROUP, describe),
        *_topics("processor", read, frames, models),
        *_topics("processor", write, verdicts, events, dead, models),
        Right("processor", _Resource.GROUP, PROCESSORS_GROUP, read),
        *_topics("recorder", read, verdicts, events, dead, alerts),
        *_topics("recorder", write, alerts, events),
        # Its live audit looks how far the frames reach, and how far the processors are: it reads none.
        *_topics("recorder", describe, frames),
        Right("recorder", _Resource.GROUP, PROCESSORS_GROUP, describe),
        Right("recorder", _Resource.GROUP, f"{OURS}-recorder", read, _Pattern.PREFIXED),
        # It shows verdicts and models, and looks as the recorder does for its live audit.
        *_topics("console", read, verdicts, models),
        *_topics("console", describe, dead),
        # Refused frames, sealed as they are, go to the processors once more.
        *_topics("console", read, frames),
        *_topics("console", write, frames),
        Right("console", _Resource.GROUP, PROCESSORS_GROUP, describe),
        Right("audit", _Resource.TOPIC, f"{OURS}.", read, _Pattern.PREFIXED),
        Right("audit", _Resource.GROUP, f"{OURS}-", describe, _Pattern.PREFIXED),
        Right("monitor", _Resource.TOPIC, f"{OURS}.", describe, _Pattern.PREFIXED),
        Right("monitor", _Resource.GROUP, f"{OURS}-", describe, _Pattern.PREFIXED),
    ]


async def grant(address: KafkaAddress, deadline_s: float = 30.0) -> None:
    """Set the rights of all roles in Kafka; those that are there stay. BrokerError when Kafka does not take them."""
    import asyncio

    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError
    from aiokafka.protocol.admin import CreateAclsRequest

    requests = [
        CreateAclsRequest(
            right.resource, right.name, right.pattern, f"User:{right.role}", _ANY_HOST, right.operation, _ALLOW
        )
        for right in kafka_rights()
    ]
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while True:
        admin = AIOKafkaAdminClient(**kafka_options(address), request_timeout_ms=10_000)
        try:
            await start(admin)
            answers = await asyncio.gather(*(admin._send_request(request) for request in requests))
            break
        except (KafkaError, OSError) as error:
            # A Kafka that has just started may be slow. What it has taken already, it takes again.
            if loop.time() >= end:
                what = f"expected Kafka at {address} to take rights within {deadline_s:g} s"
                raise BrokerError(f"{what}, got {type(error).__name__}: {error}") from None
        finally:
            await admin.close()
        await asyncio.sleep(_AGAIN_S)
    refused = [answer for each in answers for answer in each.creation_responses if answer[0]]
    if refused:
        raise BrokerError(f"expected Kafka at {address} to take rights, got error {refused[0][0]}: {refused[0][1]}")
