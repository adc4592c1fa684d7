"""Private members of aiokafka 0.14: this module alone touches them.

Each function names what it needs and why no public member gives it. The contract tests in
`tests/schemas/test_kafka_internals.py` fail against a real Kafka when a release of aiokafka changes one.
aiokafka itself is not imported: a machine without it can load this module.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from traceback import walk_tb
from typing import Any, Final

_LIMITED: Final = "send_in_time"


class NetworkClient:
    """The AIOKafkaClient inside a consumer, a producer or an administrator: connections and cluster metadata."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @classmethod
    def inside(cls, client: Any) -> NetworkClient | None:
        """Return the client inside `client`; None for a test's stand-in."""
        inner = getattr(client, "client", None) or getattr(client, "_client", None)
        return cls(inner) if hasattr(inner, "_get_conn") else None

    @property
    def request_timeout_s(self) -> float:
        """Time limit of a new connection and of each request on it."""
        return float(self._inner._request_timeout_ms) / 1000

    @request_timeout_s.setter
    def request_timeout_s(self, seconds: float) -> None:
        self._inner._request_timeout_ms = round(1000 * seconds)

    def refresh_metadata_every(self, seconds: float) -> None:
        """Request the cluster metadata this often from now on."""
        self._inner._metadata_max_age_ms = 1000 * seconds

    def on_metadata(self, listener: Callable[[set[int]], None]) -> None:
        """Call `listener` with the numbers of the live nodes after each metadata update."""
        self._inner.cluster.add_listener(lambda cluster: listener({broker.nodeId for broker in cluster.brokers()}))

    def connections(self) -> list[tuple[Any, Any]]:
        """Return each open connection with its node: a number, or `bootstrap`."""
        return [(node, connection) for (node, _), connection in list(self._inner._conns.items())]

    def limit_requests(self, timeout_s: Callable[[int], float]) -> None:
        """Give each request on a future connection the time limit that `timeout_s` returns for its API key."""
        connect = self._inner._get_conn

        async def get_connection(node: Any, **options: Any) -> Any:
            connection = await connect(node, **options)
            if connection is not None and connection.send.__name__ != _LIMITED:
                connection.send = _limited(connection, timeout_s)
            return connection

        self._inner._get_conn = get_connection


def _limited(connection: Any, timeout_s: Callable[[int], float]) -> Any:
    send = connection.send

    def send_in_time(request: Any, expect_response: bool = True) -> Awaitable[Any]:
        connection._request_timeout = timeout_s(request.API_KEY)
        answer: Awaitable[Any] = send(request, expect_response)
        return answer

    return send_in_time


def abort(connection: Any) -> None:
    """Close a connection at once; an orderly close by TLS would wait for the other side."""
    writer = connection._writer
    connection.close()
    if writer is not None:
        writer.transport.abort()


def abort_bootstrap(error: BaseException) -> None:
    """Abort the bootstrap connection of a start that raised `error`.

    aiokafka holds that connection in a local variable only, so stopping the client does not close it.
    """
    for frame, _ in walk_tb(error.__traceback__):
        connection = frame.f_locals.get("bootstrap_conn")
        if connection is not None:
            abort(connection)


def batch_end(error: BaseException) -> int:
    """Return the offset after the batch in which a consumer raised `error`; -1 if it raised it elsewhere.

    aiokafka holds that batch in a local variable only.
    """
    batches = (frame.f_locals.get("next_batch") for frame, _ in walk_tb(error.__traceback__))
    return max((int(batch.next_offset) for batch in batches if batch is not None), default=-1)


def sender_task(producer: Any) -> Any:
    """Return the task of a producer that sends its batches; None before its start."""
    return producer._sender.sender_task


def stamped(producer: Any, batch: Any, sequence: int) -> bytes:
    """Return the bytes of a closed batch of an idempotent producer, with the producer's id and a sequence number."""
    manager = producer._txn_manager
    batch._set_producer_state(manager.producer_id, manager.producer_epoch, sequence)
    data: bytes = batch._build()
    return data


async def produce(producer: Any, node: int, batches: Mapping[Any, bytes]) -> dict[Any, Any]:
    """Send a produce request with one stamped batch for each partition; return Kafka's answers by partition.

    An answer is the batch's first offset, or a KafkaError. Raises KafkaError if the node gives no answer. Of a batch
    that Kafka had already, the offset may be unknown, which is −1.
    """
    from aiokafka.errors import DuplicateSequenceNumber, NoError, for_code
    from aiokafka.protocol.produce import ProduceRequest
    from aiokafka.structs import TopicPartition

    topics: dict[str, list[tuple[int, bytes]]] = {}
    for place, data in batches.items():
        topics.setdefault(place.topic, []).append((place.partition, data))
    request = ProduceRequest(None, -1, producer._request_timeout_ms, list(topics.items()))
    response = await producer.client.send(node, request)
    answers = {}
    for topic, partitions in response.topics:
        for partition, code, offset, *_ in partitions:
            error = for_code(code)
            kept = error in (NoError, DuplicateSequenceNumber)
            answers[TopicPartition(topic, partition)] = offset if kept else error()
    return answers


def close_connections(producer: Any) -> None:
    """Close the connections that a producer still holds, and mark the producer as closed.

    A request that waited for a connection may have made one after the client was closed.
    """
    for connection in producer.client._conns.values():
        connection.close()
    producer._closed = True


def leave_group_on_stop(consumer: Any) -> None:
    """Let `stop` leave the group also for a member with a fixed name; by default such a member only goes silent."""
    if (coordinator := consumer._coordinator) is not None:
        coordinator._group_instance_id = None


def raise_group_error(consumer: Any) -> None:
    """Raise the error for which a member of a group has stopped to join it, if there is one.

    aiokafka raises it only where a method reads records or commits, and joins again only after that.
    """
    consumer._coordinator.check_errors()


def force_close(consumer: Any) -> list[Callable[[], Awaitable[None]]]:
    """Return the steps that close a consumer whose `stop` did not end: its fetcher and its connections."""
    fetcher = [] if consumer._fetcher is None else [consumer._fetcher.close]
    return [*fetcher, consumer._client.close]


async def committed_notes(consumer: Any, partitions: Iterable[Any]) -> dict[Any, str]:
    """Return the metadata string of the last commit by partition; `committed` returns the offset alone."""
    found = await consumer._coordinator.fetch_committed_offsets(list(partitions))
    return {partition: each.metadata or "" for partition, each in found.items()}


def commit_to_existing_topics(consumer: Any) -> None:
    """Make commits to a missing topic refresh the metadata and raise UnknownTopicOrPartitionError.

    aiokafka would retry them until another topic of that name exists, and commit offsets of the old log to the new one.
    The metadata take the partitions from the member, which would otherwise notice nothing until its next fetch.
    """
    from aiokafka.errors import UnknownTopicOrPartitionError

    commit = consumer._coordinator._do_commit_offsets

    async def commit_once(assignment: Any, offsets: Any) -> None:
        try:
            await commit(assignment, offsets)
        except UnknownTopicOrPartitionError as error:
            error.retriable = False
            await consumer._client.force_metadata_update()
            raise

    consumer._coordinator._do_commit_offsets = commit_once


def current_assignment(consumer: Any) -> object:
    """Return the consumer's assignment: an object that each rebalance replaces, even if the partitions stay."""
    return consumer._subscription.subscription.assignment


def missing_replicas(consumer: Any, topics: Iterable[str]) -> int:
    """Return the replicas of all partitions of `topics` that are not in sync, by the last metadata."""
    cluster = consumer._client.cluster
    partitions = (each for topic in topics for each in cluster._partitions.get(topic, {}).values())
    return sum(len(set(each.replicas) - set(each.isr)) for each in partitions)


def is_hidden(consumer: Any, topic: str) -> bool:
    """Return whether the last metadata hides `topic` because the consumer has no right to it."""
    return topic in consumer._client.cluster.unauthorized_topics


async def send_request(admin: Any, request: Any, node: int | None = None) -> Any:
    """Send a request that an administrator has no method for, to `node` or to any node, and return the response."""
    return await admin._send_request(request, node)
