"""Preflight check of a role's rights in Kafka when a person starts it; a running role waits for its rights."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from infra.pki.kafka_rights import OURS, kafka_rights
from schemas.errors import BrokerError
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.admin import Admin

Role = Literal["bridge", "processor", "recorder"]

_ANSWER_S: Final = 5.0
_USED: Final = ("READ", "WRITE")
"""The operations that a role cannot work without. Describing topics serves only metrics, and the hold of frames while
too many records are unrecorded."""


class _MetadataResponse(Response):  # type: ignore[misc]  # aiokafka has no annotations
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String()), ("port", Int32), ("rack", String()))),
        ("cluster_id", String()),
        ("controller_id", Int32),
        ("topics", Array(
            ("error_code", Int16), ("topic", String()), ("is_internal", Boolean),
            ("partitions", Array(
                ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
                ("replicas", Array(Int32)), ("isr", Array(Int32)), ("offline_replicas", Array(Int32)),
            )),
            ("authorized_operations", Int32),
        )),
        ("cluster_authorized_operations", Int32),
    )  # fmt: skip


class _MetadataStruct(RequestStruct):  # type: ignore[misc]  # aiokafka has no annotations
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String())),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Metadata(Request[_MetadataStruct]):  # type: ignore[misc]  # aiokafka has no annotations
    """Metadata request, version 8, with authorised operations (KIP-430), which aiokafka does not request."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        """Return the request in wire format."""
        return request_struct_class(self._topics, False, False, True)


def require_rights(address: KafkaAddress, role: Role, groups: Sequence[str] = ()) -> None:
    """Return when Kafka allows the work of a role and its `groups`, or does not answer the question.

    Raises `BrokerError` naming the operations that Kafka does not authorise.
    """
    try:
        missing = asyncio.run(_missing(address, role, groups))
    except (KafkaError, OSError, TimeoutError, NotImplementedError):  # the role finds it out by itself
        return
    if missing:
        raise BrokerError(
            f"Kafka at {address}: expected the {role} to have the right to {' and '.join(missing)}, got a "
            f"refusal. Run `pointillist topics --rights`{_groups_of(role) if groups else '.'}"
        )


def _groups_of(role: str) -> str:
    """Return the end of a message: the prefixes of the groups that a role may join."""
    found = [
        right.name for right in kafka_rights()
        if right.role == role and right.resource.name == "GROUP" and right.pattern.name == "PREFIXED"
    ]  # fmt: skip
    return f", or choose a group whose name begins with {' or '.join(found)}." if found else "."


async def _missing(address: KafkaAddress, role: str, groups: Sequence[str]) -> list[str]:
    """Describe the operations of the role that Kafka does not authorise, as a part of a message."""
    used: dict[str, set[str]] = defaultdict(set)
    for right in kafka_rights():
        if right.role == role and right.operation.name in _USED and right.name.startswith(f"{OURS}."):
            used[right.name].add(right.operation.name)
    async with Admin(address, _ANSWER_S) as admin, asyncio.timeout(_ANSWER_S):
        (found,) = await admin.send(_Metadata(sorted(used)))
        refused = [group for group in groups if await _may_not_join(admin, group)]
    return refusals(found.to_object()["topics"], used) + [f"join the group {group}" for group in refused]


def refusals(topics: Sequence[Mapping[str, Any]], used: Mapping[str, set[str]]) -> list[str]:
    """Return the `used` operations by topic that Kafka's answer does not authorise: `read pointillist.frames.v1`."""
    missing = []
    for topic in sorted(topics, key=lambda each: str(each["topic"])):
        if topic["error_code"] == TopicAuthorizationFailedError.errno:
            allowed = 0
        elif topic["error_code"] == 0 and topic["authorized_operations"] >= 0:
            allowed = topic["authorized_operations"]
        else:  # the topic does not exist yet, or the answer lacks the field
            continue
        name = topic["topic"]
        missing += [f"{each.lower()} {name}" for each in sorted(used[name]) if not allowed >> _BITS[each] & 1]
    return missing


_BITS: Final = {right.operation.name: int(right.operation) for right in kafka_rights()}
"""Bits of the authorised operations in Kafka's bit field: each is the operation's number among rights."""


async def _may_not_join(admin: Admin, group: str) -> bool:
    try:
        await admin.coordinator(group)
    except GroupAuthorizationFailedError:
        return True
    except KafkaError:  # there is none yet
        return False
    return False
