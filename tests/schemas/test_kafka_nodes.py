"""Connections of a client to nodes: it leaves a node that the others no longer list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from schemas.transport.kafka.nodes import CONNECT_S, METADATA_S, leave_missing_nodes

METADATA, FETCH, JOIN_GROUP = 3, 1, 11
PATIENCE_S = 15.0


class _Connection:
    def __init__(self) -> None:
        self.open = True
        self.aborted = False
        self._writer: SimpleNamespace | None = SimpleNamespace(transport=SimpleNamespace(abort=self._abort))
        self._request_timeout = 0.0
        self.waits: list[tuple[int, float]] = []

    def send(self, request: Any, expect_response: bool = True) -> object:
        self.waits.append((request.API_KEY, self._request_timeout))
        return object()

    def close(self) -> None:
        self.open = False
        self._writer = None

    def _abort(self) -> None:
        self.aborted = True


class _Client:
    """The part of aiokafka's client that the code under test uses."""

    def __init__(self) -> None:
        self._request_timeout_ms = round(1000 * PATIENCE_S)
        self._metadata_max_age_ms: float = 300_000
        self._conns: dict[tuple[object, int], _Connection] = {}
        self.listeners: list[Callable[[Any], None]] = []
        self.cluster = SimpleNamespace(add_listener=self.listeners.append)

    async def _get_conn(self, node: object, *, group: int = 0) -> _Connection:
        return self._conns.setdefault((node, group), _Connection())

    def update_metadata(self, *nodes: int) -> None:
        brokers = [SimpleNamespace(nodeId=node) for node in nodes]
        for listener in self.listeners:
            listener(SimpleNamespace(brokers=lambda: brokers))


@pytest.fixture
def client() -> _Client:
    client = _Client()
    leave_missing_nodes(SimpleNamespace(_client=client))
    return client


async def test_connections_to_a_node_missing_in_the_metadata_are_closed(client: _Client) -> None:
    connections: Mapping[tuple[int, int], _Connection] = {
        (node, group): await client._get_conn(node, group=group) for node in (1, 2, 3) for group in (0, 1)
    }
    client.update_metadata(1, 2, 3)
    assert all(each.open for each in connections.values())
    client.update_metadata(1, 3)
    assert [place for place, each in connections.items() if not each.open] == [(2, 0), (2, 1)]
    assert [place for place, each in connections.items() if each.aborted] == [(2, 0), (2, 1)]
    client.update_metadata(1, 3)  # the connections that are closed already


async def test_the_bootstrap_connection_stays(client: _Client) -> None:
    first = await client._get_conn("bootstrap")
    client.update_metadata(1, 2)
    assert first.open


def test_metadata_is_refreshed_more_often_with_several_nodes(client: _Client) -> None:
    client.update_metadata(1)
    assert client._metadata_max_age_ms == 300_000
    client.update_metadata(1, 2, 3)
    assert client._metadata_max_age_ms == 1000 * METADATA_S


async def test_requests_that_any_node_can_answer_have_a_short_timeout(client: _Client) -> None:
    connection = await client._get_conn(1)
    assert await client._get_conn(1) is connection
    for key in (METADATA, FETCH, JOIN_GROUP, METADATA):
        connection.send(SimpleNamespace(API_KEY=key))
    assert connection.waits == [
        (METADATA, METADATA_S), (FETCH, PATIENCE_S), (JOIN_GROUP, PATIENCE_S), (METADATA, METADATA_S)
    ]  # fmt: skip


def test_the_connection_timeout_is_short(client: _Client) -> None:
    assert client._request_timeout_ms == 1000 * CONNECT_S


async def test_a_client_without_aiokafkas_internals_is_left_unchanged() -> None:
    leave_missing_nodes(SimpleNamespace(start=asyncio.sleep))
