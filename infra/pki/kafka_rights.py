"""The rights of each role in Kafka, and their transfer to Kafka."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from schemas.errors import BrokerError
from schemas.topics import PROCESSORS_GROUP, RECORDED_GROUP, KafkaTopic
from schemas.transport.access import KafkaAddress

if TYPE_CHECKING:
    from schemas.transport.kafka.admin import Admin

PRINCIPAL_RULES: Final = (
    "RULE:^CN=([a-z]+)(-[0-9]+)?$/$1/",
    "RULE:^CN=([a-z]+)(-[0-9]+)?,OU=([0-9]+)$/$1.$3/",
    "DEFAULT",
)
"""Kafka's `ssl.principal.mapping.rules`: the user of a role's certificate, `bridge`, or `bridge.2` for its generation
2."""
SUPER_USERS: Final = ("kafka", "admin")
"""Users whose rights Kafka does not check: Kafka's own nodes, and the administrator of the rights."""
OURS: Final = "pointillist"
"""The prefix of all our topics and groups."""


Result = TypeVar("Result")


class _Resource(IntEnum):
    ANY = 1
    TOPIC = 2
    GROUP = 3


class _Pattern(IntEnum):
    ANY = 1
    LITERAL = 3
    PREFIXED = 4


class _Operation(IntEnum):
    ANY = 1
    READ = 3
    WRITE = 4
    DESCRIBE = 8


_NONE_RAISED: Final[Mapping[str, int]] = MappingProxyType({})
_ANY_PERMISSION: Final = 1
_ALLOW: Final = 3
_NOT_AUTHORIZED: Final = 31
_ANY_HOST: Final = "*"
_DEADLINE_S: Final = 30.0


@dataclass(frozen=True)
class Right:
    """One entry of Kafka's access control list. Reading or writing includes describing."""

    role: str
    resource: _Resource
    name: str
    operation: _Operation
    pattern: _Pattern = _Pattern.LITERAL


def _topics(role: str, operation: _Operation, *topics: KafkaTopic) -> list[Right]:
    return [Right(role, _Resource.TOPIC, topic.value, operation) for topic in topics]


def kafka_rights() -> list[Right]:
    """Return all rights of all roles; everything else is denied."""
    read, write, describe = _Operation.READ, _Operation.WRITE, _Operation.DESCRIBE
    frames, events, verdicts = KafkaTopic.FRAMES, KafkaTopic.EVENTS, KafkaTopic.VERDICTS
    alerts, dead, models, views = KafkaTopic.ALERTS, KafkaTopic.DEAD_LETTERS, KafkaTopic.MODELS, KafkaTopic.VIEWS
    comparisons = KafkaTopic.COMPARISONS
    return [
        # The bridge writes frames, reads requests to cameras, and measures the lag of processors and recorders.
        *_topics("bridge", write, frames, events, dead),
        *_topics("bridge", read, events),
        *_topics("bridge", describe, verdicts),
        Right("bridge", _Resource.GROUP, PROCESSORS_GROUP, describe),
        Right("bridge", _Resource.GROUP, RECORDED_GROUP, describe),
        *_topics("processor", read, frames, models, views),
        *_topics("processor", write, verdicts, events, dead, models, comparisons),
        Right("processor", _Resource.GROUP, PROCESSORS_GROUP, read),
        *_topics("recorder", read, verdicts, events, dead),
        *_topics("recorder", write, alerts, events),
        Right("recorder", _Resource.GROUP, f"{OURS}-recorder", read, _Pattern.PREFIXED),
        # The console shows verdicts and models.
        *_topics("console", read, verdicts, models),
        # Rejected frames, sealed and unchanged, go to the processors once more.
        *_topics("console", read, frames),
        *_topics("console", write, frames, views),
        Right("audit", _Resource.TOPIC, f"{OURS}.", read, _Pattern.PREFIXED),
        Right("audit", _Resource.GROUP, f"{OURS}-", describe, _Pattern.PREFIXED),
        # The gate assesses candidates by the comparisons.
        *_topics("monitor", read, models, comparisons),
        *_topics("monitor", write, models),
        Right("monitor", _Resource.TOPIC, f"{OURS}.", describe, _Pattern.PREFIXED),
        Right("monitor", _Resource.GROUP, f"{OURS}-", describe, _Pattern.PREFIXED),
    ]


def principal(role: str, generation: int) -> str:
    """Return Kafka's user of a role with certificates of that generation."""
    return f"User:{role}.{generation}" if generation else f"User:{role}"


def super_users(generations: Mapping[str, int]) -> str:
    """Return Kafka's `super.users`, by the accepted generation of each role."""
    return ";".join(principal(role, generations.get(role, 0)) for role in SUPER_USERS)


async def grant(
    address: KafkaAddress, deadline_s: float = _DEADLINE_S, *, generations: Mapping[str, int] = _NONE_RAISED
) -> None:
    """Set the rights of all roles, each for its accepted generation; existing rights stay.

    Raises BrokerError when Kafka rejects them.
    """
    from aiokafka.protocol.admin import CreateAclsRequest

    async def create(admin: Admin) -> list[Any]:
        requests = [
            CreateAclsRequest(
                right.resource,
                right.name,
                right.pattern,
                principal(right.role, generations.get(right.role, 0)),
                _ANY_HOST,
                right.operation,
                _ALLOW,
            )
            for right in kafka_rights()
        ]
        answers = await admin.send(*requests)
        return [answer for each in answers for answer in each.creation_responses]

    _check(await _on_rights(address, create, deadline_s), address)


async def withdraw(address: KafkaAddress, generations: Mapping[str, int], deadline_s: float = _DEADLINE_S) -> None:
    """Delete the rights of all earlier generations; an open connection is refused from its next request on.

    Raises BrokerError when Kafka has not done so in time.
    """
    from aiokafka.protocol.admin import DeleteAclsRequest, DescribeAclsRequest

    former = [principal(role, number) for role, accepted in generations.items() for number in range(accepted)]

    def of(user: str) -> tuple[int, None, int, str, None, int, int]:
        return (_Resource.ANY, None, _Pattern.ANY, user, None, _Operation.ANY, _ANY_PERMISSION)

    async def delete(admin: Admin) -> list[Any]:
        answers = await admin.send(*(DeleteAclsRequest(*of(user)) for user in former))
        left = await admin.send(*(DescribeAclsRequest(*of(user)) for user in former))
        if any(each.resources for each in left):
            raise ConnectionError("rights of earlier generations are still there")
        return [answer for each in answers for answer in each.filter_responses]

    if former:
        _check(await _on_rights(address, delete, deadline_s), address)


async def is_super_user(address: KafkaAddress) -> bool:
    """Return whether Kafka shows this client the rights of all users, which only super users may read."""
    from aiokafka.protocol.admin import DescribeAclsRequest

    async def describe(admin: Admin) -> list[Any]:
        wanted = (_Resource.ANY, None, _Pattern.ANY, None, None, _Operation.ANY, _ANY_PERMISSION)
        return await admin.send(DescribeAclsRequest(*wanted))

    (answer,) = await _on_rights(address, describe, _DEADLINE_S)
    return bool(answer.error_code != _NOT_AUTHORIZED)


async def _on_rights(address: KafkaAddress, work: Callable[[Admin], Awaitable[Result]], deadline_s: float) -> Result:
    from schemas.transport.kafka.administration import administer

    return await administer(address, "accept rights", work, deadline_s, request_s=10.0)


def _check(answers: list[Any], address: KafkaAddress) -> None:
    refused = [answer for answer in answers if answer[0]]
    if refused:
        raise BrokerError(
            f"Kafka at {address}: expected it to accept rights, got error {refused[0][0]}: {refused[0][1]}. "
            "Check its log."
        )
