"""The voting controllers of a Kafka, by the request DescribeQuorum, which aiokafka 0.14 lacks."""

from __future__ import annotations

from typing import Final

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Int64, Schema, TaggedFields

from schemas.transport.kafka.admin import Admin, check_code

STALE_MS: Final = 2_000
"""A voter without a fetch for this long is away; voters fetch at least twice a second."""
_METADATA: Final = "__cluster_metadata"
_REPLICAS: Final = CompactArray(
    ("replica_id", Int32),
    ("log_end_offset", Int64),
    ("last_fetch_timestamp", Int64),
    ("last_caught_up_timestamp", Int64),
    ("tags", TaggedFields),
)


class _Answer(Response):  # type: ignore[misc]  # aiokafka has no annotations
    API_KEY = 55
    API_VERSION = 1
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("leader_id", Int32),
                        ("leader_epoch", Int32),
                        ("high_watermark", Int64),
                        ("current_voters", _REPLICAS),
                        ("observers", _REPLICAS),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Asked(RequestStruct):  # type: ignore[misc]  # aiokafka has no annotations
    API_KEY = 55
    API_VERSION = 1
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("partitions", CompactArray(("partition", Int32), ("tags", TaggedFields))),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeQuorum(Request[_Asked]):  # type: ignore[misc]  # aiokafka has no annotations
    API_KEY = 55

    def build(self, request_struct_class: type[_Asked]) -> _Asked:
        return request_struct_class([(_METADATA, [(0, {})], {})], {})


async def voters(admin: Admin) -> set[int]:
    """Return the numbers of the active voting controllers, as the leader reports them.

    Raises what aiokafka raises when Kafka does not answer, or has no leading controller at the moment.
    """
    (answer,) = await admin.send(_DescribeQuorum())
    answered = answer.to_object()
    check_code(answered["error_code"])
    (topic,) = answered["topics"]
    (partition,) = topic["partitions"]
    check_code(partition["error_code"])
    found = partition["current_voters"]
    # The leader's last fetch is the present, by its own clock.
    now_ms = max((each["last_fetch_timestamp"] for each in found), default=0)
    return {each["replica_id"] for each in found if each["last_fetch_timestamp"] > now_ms - STALE_MS}
