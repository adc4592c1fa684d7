"""The one administrator of Kafka: metadata of the cluster, consumer groups, new topics and other requests."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    NotControllerError,
    NotCoordinatorForGroupError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.structs import TopicPartition

from schemas.transport.access import KafkaAddress, kafka_options
from schemas.transport.kafka.clients import REQUEST_S, STOP_S, close_clients, start_client
from schemas.transport.kafka.internals import send_request

_OF_THE_TOPIC: Final = 1
"""Kafka's number for a setting that the topic itself has, and no default of a broker."""
_REBALANCING: Final = ("PreparingRebalance", "CompletingRebalance")


class Cluster(NamedTuple):
    """Live nodes, by their numbers, and the node that is the controller; -1 if there is none."""

    nodes: frozenset[int]
    controller: int


class PartitionState(NamedTuple):
    """A partition's leader (-1 if there is none) and the nodes that hold it."""

    place: TopicPartition
    leader: int
    replicas: frozenset[int]
    in_sync: frozenset[int]


class GroupState(NamedTuple):
    """Members of a consumer group by client id, each with its partitions."""

    settled: bool
    """False during a rebalance, and if Kafka cannot describe the group."""
    members: Mapping[str, frozenset[TopicPartition]]


class Admin:
    """Use it by `async with`: start within `request_s` seconds, and close in any case.

    Each method raises KafkaError, OSError or TimeoutError if Kafka does not answer within `request_s` seconds.
    """

    def __init__(self, address: KafkaAddress, request_s: float = REQUEST_S, name: str = "") -> None:
        """`name` is the client id in Kafka's log."""
        self._client = AIOKafkaAdminClient(**kafka_options(address, name), request_timeout_ms=round(1000 * request_s))
        self._request_s = request_s
        self._coordinators: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._request_s):
                await start_client(self._client)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, deadline_s: float = STOP_S) -> None:
        """Close all connections within `deadline_s` seconds."""
        await close_clients(self._client.close, deadline_s=deadline_s)

    async def cluster(self) -> Cluster:
        """Return the live nodes and the controller."""
        async with asyncio.timeout(self._request_s):
            found = await self._client.describe_cluster()
        return Cluster(frozenset(broker["node_id"] for broker in found["brokers"]), found["controller_id"])

    async def partitions(self, *topics: str) -> list[PartitionState]:
        """Return the partitions of `topics`, or of all topics if none is given; a missing topic has none.

        Some clusters create a missing topic that is named here. Raises TopicAuthorizationFailedError if this client has
        no right to a topic that is named here.
        """
        async with asyncio.timeout(self._request_s):
            described = await self._client.describe_topics(list(topics) or None)
        for topic in described:
            if topic["error_code"] == TopicAuthorizationFailedError.errno:
                raise TopicAuthorizationFailedError(topic["topic"])
        return [
            PartitionState(
                TopicPartition(topic["topic"], each["partition"]),
                each["leader"],
                frozenset(each["replicas"]),
                frozenset(each["isr"]),
            )
            for topic in described
            for each in topic["partitions"]
        ]

    async def coordinator(self, group: str) -> int:
        """Return the node that coordinates `group`."""
        async with asyncio.timeout(self._request_s):
            found: int = await self._client.find_coordinator(group)
        return found

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return the committed offsets of `group`: the next record of each partition that has a commit."""
        return {place: offset for place, (offset, _) in (await self.committed_with_notes(group)).items()}

    async def committed_with_notes(self, group: str) -> dict[TopicPartition, tuple[int, str]]:
        """Return the committed offsets of `group`, each with the note of its commit."""
        known = self._coordinators.pop(group, None)
        try:
            coordinator = await self.coordinator(group) if known is None else known
            async with asyncio.timeout(self._request_s):
                answer = await send_request(self._client, OffsetFetchRequest(group, None), coordinator)
            # Of the whole group: aiokafka's own method ignores it, and returns no offsets.
            check_code(answer.error_code)
        except (GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError):
            if known is None:
                raise
            return await self.committed_with_notes(group)  # the group has another coordinator by now
        self._coordinators[group] = coordinator
        found = dict[TopicPartition, tuple[int, str]]()
        for topic, partitions in answer.topics:
            for partition, offset, note, code in partitions:
                check_code(code)
                if offset >= 0:
                    found[TopicPartition(topic, partition)] = offset, note
        return found

    async def commit(self, group: str, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets, each with a note, to a `group` that has no members; Kafka refuses it for any other."""
        topics: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for place, (offset, note) in offsets.items():
            topics[place.topic].append((place.partition, offset, note))
        request = OffsetCommitRequest(
            group,
            OffsetCommitRequest.DEFAULT_GENERATION_ID,
            "",
            OffsetCommitRequest.DEFAULT_RETENTION_TIME,
            list(topics.items()),
        )
        coordinator = await self.coordinator(group)
        async with asyncio.timeout(self._request_s):
            answer = await send_request(self._client, request, coordinator)
        for _, partitions in answer.topics:
            for _, code in partitions:
                check_code(code)

    async def groups(self) -> list[str]:
        """Return the names of all consumer groups."""
        async with asyncio.timeout(self._request_s):
            return [name for name, *_ in await self._client.list_consumer_groups()]

    async def group(self, name: str) -> GroupState:
        """Return the members of a consumer group and their partitions.

        Raises GroupCoordinatorNotAvailableError if Kafka has just started, or has never had a group.
        """
        async with asyncio.timeout(self._request_s):
            answers = await self._client.describe_consumer_groups([name])
        settled = True
        members: dict[str, frozenset[TopicPartition]] = {}
        for answer in answers:
            # A group is: error, name, state, protocol type, protocol, members.
            for error, _, state, _, _, found, *_ in answer.groups:
                settled &= not error and state not in _REBALANCING
                # A member begins with its id and client id, and ends with its assignment.
                for _, client, *_, assignment in found:
                    members[client] = members.get(client, frozenset()) | _assigned(assignment)
        return GroupState(settled, members)

    async def create_topics(self, topics: Sequence[NewTopic]) -> dict[str, tuple[int, str]]:
        """Create topics; return the error code, 0 for none, and the message for each name."""
        async with asyncio.timeout(self._request_s):
            try:
                answer = await self._client.create_topics(list(topics))
            except AttributeError:  # aiokafka takes the controller for granted
                raise NotControllerError("Kafka: expected a controller, got none. Try again.") from None
        return {row[0]: (row[1], row[2] or "") for row in answer.topic_errors}

    async def set_topics(self, *topics: str, settings: Mapping[str, str]) -> None:
        """Change `settings` of existing topics, by Kafka's names; their other settings stay as they are."""
        named = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        async with asyncio.timeout(self._request_s):
            answers = await self._client.describe_configs(named)
        changed = []
        for code, _, _, topic, entries in (each for answer in answers for each in answer.resources):
            check_code(code)
            # The request replaces all settings of a topic.
            own = {name: value for name, value, _, source, *_ in entries if source == _OF_THE_TOPIC}
            if own | dict(settings) != own:
                changed.append(ConfigResource(ConfigResourceType.TOPIC, topic, own | dict(settings)))
        if not changed:
            return
        async with asyncio.timeout(self._request_s):
            answers = await self._client.alter_configs(changed)
        for code, *_ in (each for answer in answers for each in answer.resources):
            check_code(code)

    async def send(self, *requests: Any) -> list[Any]:
        """Send requests of Kafka's protocol that have no method here, and return the responses in order."""
        async with asyncio.timeout(self._request_s):
            return await asyncio.gather(*(send_request(self._client, request) for request in requests))


def _assigned(assignment: bytes) -> frozenset[TopicPartition]:
    return frozenset(ConsumerProtocol.ASSIGNMENT.decode(assignment).partitions()) if assignment else frozenset()


def check_code(code: int) -> None:
    """Raise the KafkaError of an error code in a response; 0 is no error."""
    if code:
        raise for_code(code)()
