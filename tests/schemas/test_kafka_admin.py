"""The admin client's handling of Kafka's answers, without a Kafka."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError
from aiokafka.protocol.commit import (
    OffsetCommitRequest,
    OffsetCommitResponse_v3,
    OffsetFetchRequest,
    OffsetFetchResponse_v3,
)
from aiokafka.structs import TopicPartition

from schemas.transport.kafka import admin as admin_module
from schemas.transport.kafka.admin import Admin

LOADING, NOT_THE_COORDINATOR, NOT_AUTHORISED = 14, 16, 30


class Nodes:
    """A stand-in for aiokafka's client. A test moves the coordinator from node 7 to node 8."""

    def __init__(self, **_: object) -> None:
        self.coordinator = 7
        self.requested_nodes: list[int] = []
        self.error = 0
        self.partition_error = 0

    async def find_coordinator(self, group: str) -> int:
        assert group == "processors"
        return self.coordinator

    async def _send_request(self, request: OffsetFetchRequest, node: int) -> OffsetFetchResponse_v3:
        self.requested_nodes.append(node)
        if error := NOT_THE_COORDINATOR if node != self.coordinator else self.error:
            return OffsetFetchResponse_v3(0, [], error)
        partitions = [(0, 5, "a note", self.partition_error), (1, -1, "", 0)]
        return OffsetFetchResponse_v3(0, [("frames", partitions)], 0)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    made = Nodes()
    monkeypatch.setattr(admin_module, "AIOKafkaAdminClient", lambda **_: made)
    return made


async def test_the_offsets_of_a_group_are_read_from_its_coordinator_also_after_a_move(nodes: Nodes) -> None:
    admin = Admin("nowhere:1")
    assert await admin.committed("processors") == {TopicPartition("frames", 0): 5}
    nodes.coordinator = 8
    assert await admin.committed("processors") == {TopicPartition("frames", 0): 5}
    assert await admin.committed("processors") == {TopicPartition("frames", 0): 5}
    assert nodes.requested_nodes == [7, 7, 8, 8]


@pytest.mark.parametrize("code", [LOADING, NOT_AUTHORISED])
async def test_an_error_of_the_whole_group_is_raised(nodes: Nodes, code: int) -> None:
    admin = Admin("nowhere:1")
    await admin.committed("processors")
    nodes.error = code
    with pytest.raises(GroupAuthorizationFailedError if code == NOT_AUTHORISED else KafkaError):
        await admin.committed("processors")
    nodes.error = 0
    assert await admin.committed("processors") == {TopicPartition("frames", 0): 5}


async def test_an_error_of_a_partition_is_raised(nodes: Nodes) -> None:
    nodes.partition_error = LOADING
    with pytest.raises(KafkaError):
        await Admin("nowhere:1").committed("processors")


async def test_a_committed_offset_has_the_note_of_its_commit(nodes: Nodes) -> None:
    assert await Admin("nowhere:1").committed_with_notes("processors") == {TopicPartition("frames", 0): (5, "a note")}


@pytest.mark.parametrize("code", [0, NOT_AUTHORISED])
async def test_a_commit_from_outside_a_group_names_no_member_and_raises_kafkas_error(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    sent: list[tuple[int, str, object]] = []

    async def answer(request: OffsetCommitRequest, node: int) -> OffsetCommitResponse_v3:
        assert node == nodes.coordinator
        sent.append((request._consumer_group_generation_id, request._consumer_id, request._topics))
        return OffsetCommitResponse_v3(0, [("frames", [(0, 0), (1, code)])])

    monkeypatch.setattr(nodes, "_send_request", answer)
    offsets = {TopicPartition("frames", 0): (5, "a note"), TopicPartition("frames", 1): (7, "")}
    with pytest.raises(GroupAuthorizationFailedError) if code else nullcontext():
        await Admin("nowhere:1").commit("processors", offsets)
    assert sent == [(-1, "", [("frames", [(0, 5, "a note"), (1, 7, "")])])]
