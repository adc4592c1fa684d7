"""Clients of a Kafka of several nodes leave a node that dies or hangs as soon as the other nodes miss it.

A node that hangs keeps its connections open. Requests on them wait for the client's own time limit, and until then the
client looks for no new leader. Kafka's controller misses the node within a few seconds, and the metadata of every other
node shows it. So a client requests metadata often, waits briefly for them, and ends its connections to a node that the
metadata no longer list. Requests on those connections go to the new leader at once.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.transport.kafka.internals import NetworkClient, abort

METADATA_S: Final = 1.0
"""Seconds between two requests for metadata, and the time limit of one."""
CONNECT_S: Final = 2.0
"""Time limit of a new connection: a client makes all its connections one after the other."""
_METADATA: Final = 3
"""API key of the metadata request in Kafka's protocol."""


def leave_missing_nodes(client: Any) -> None:
    """Make aiokafka's `client` leave a node that the others miss. Call it before the client starts.

    A Kafka of one node gets no more metadata requests than without this.
    """
    network = NetworkClient.inside(client)
    if network is None:
        return
    request_s = network.request_timeout_s
    # From here on, this is the time limit of new connections; requests get their own.
    network.request_timeout_s = min(request_s, CONNECT_S)
    network.limit_requests(lambda api_key: min(request_s, METADATA_S) if api_key == _METADATA else request_s)

    def leave(nodes: set[int]) -> None:
        if len(nodes) > 1:
            network.refresh_metadata_every(METADATA_S)
        for node, connection in network.connections():
            if node not in nodes and node != "bootstrap":
                abort(connection)

    network.on_metadata(leave)
