"""Clients of a Kafka of several nodes leave one that dies or hangs as soon as the others have.

A node that hangs keeps its connections open, so that what was asked of it stays unanswered until the client's own time
limit, and no new leader is looked for before. But Kafka's controller misses it within a few seconds, and every other
node says so to whoever asks. So a client asks often, does not wait long for that answer, and ends its connections to a
node that the others do not count any more: what waits there is asked of the new leader at once.

This relies on a few internals of aiokafka 0.14, all used below; a test with a real Kafka fails when they change.
aiokafka is not imported here: the contract loads no client.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

WHO_IS_THERE_S: Final = 1.0
"""Between two questions who is there, and how long an answer to that may take."""
CONNECT_S: Final = 2.0
"""How long a new connection may take: a client makes all of its own one after the other."""
_METADATA: Final = 3
"""That question's number in Kafka's protocol."""
_LIMITED: Final = "asked_in_time"


def leave_missing_nodes(client: Any) -> None:
    """Let aiokafka's `client`, a consumer, a producer or an administrator's, leave a node that the others miss.

    To be called before it is started. A Kafka of one node is asked no more often than without this.
    """
    inner: Any = getattr(client, "client", None) or getattr(client, "_client", None)
    if not hasattr(inner, "_get_conn"):
        return  # no client of aiokafka's: a stand-in for one
    patience_s = inner._request_timeout_ms / 1000
    # From here on this is the time limit of new connections; what is asked on them has its own.
    inner._request_timeout_ms = min(inner._request_timeout_ms, round(1000 * CONNECT_S))
    connect = inner._get_conn

    async def get_connection(node: Any, **options: Any) -> Any:
        connection = await connect(node, **options)
        if connection is not None and connection.send.__name__ != _LIMITED:
            connection.send = _with_limits(connection, patience_s)
        return connection

    def leave(cluster: Any) -> None:
        nodes = {broker.nodeId for broker in cluster.brokers()}
        if len(nodes) > 1:
            inner._metadata_max_age_ms = 1000 * WHO_IS_THERE_S
        for (node, _), connection in list(inner._conns.items()):
            if node not in nodes and node != "bootstrap":
                _break_off(connection)

    inner._get_conn = get_connection
    inner.cluster.add_listener(leave)


def _break_off(connection: Any) -> None:
    """End a connection at once: to end it in good order, TLS would wait for the other side."""
    writer = connection._writer
    connection.close()
    if writer is not None:
        writer.transport.abort()


def _with_limits(connection: Any, patience_s: float) -> Any:
    """The `send` of a connection: waits `patience_s` for an answer, and less for one that any other node can give."""
    send = connection.send

    def asked_in_time(request: Any, expect_response: bool = True) -> Awaitable[Any]:
        connection._request_timeout = min(patience_s, WHO_IS_THERE_S) if request.API_KEY == _METADATA else patience_s
        answer: Awaitable[Any] = send(request, expect_response)
        return answer

    return asked_in_time
