"""Our bridge compared with quix-streams' MQTTSource: `python -m benchmarks.speed.bridge --json FILE [--messages
20000]`.

Both move the same signed frames of 2.3 KB at QoS 1 from the same mosquitto to the same Kafka. They run in alternating
rounds, each in its own process. Our bridge verifies every tag and acknowledges to MQTT after Kafka's `acks=all`.
MQTTSource verifies nothing and acknowledges before.

`cpu_ratio` is our CPU time per message ÷ theirs. `rate_ratio` is our messages per second ÷ theirs, from the first
publish to the last record in Kafka. Both are ratios of the medians over rounds. With `--baseline CHECKOUT` the bridge
of another checkout takes turns too, and `cpu_over_baseline` is our CPU time per message ÷ its.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from benchmarks.harness.checkout import packages_of
from benchmarks.harness.command_line import Option, command_line
from benchmarks.harness.document import machine, report
from benchmarks.harness.services import started
from benchmarks.speed.bridge_load import publish, publish_paced, signed_frames
from infra.local.kafka import Kafka
from infra.local.mosquitto import Mosquitto
from infra.local.process import COMMAND
from infra.local.topics import TopicSpec, create_topics, pointillist_topics
from schemas.keys.keys import KeyRing
from schemas.topics import Channel, KafkaTopic, every_camera_filter

SECRET = bytes(range(32))
CAMERAS = 32
FIRST_BOOT = 1
"""Boot of the frames that show whether the bridge has subscribed."""
WARM_UP = 2000
PARTITIONS = 4
THEIR_TOPIC = "mqtt-source"
SETTLE_S = 0.5
"""Wait after the last record is in Kafka, for the last acknowledgements."""
PATIENCE_S = 120.0


def run_ours(mqtt_host: str, mqtt_port: int, bootstrap: str) -> None:
    """Run our bridge until SIGTERM, as `pointillist bridge` does."""
    from prometheus_client import CollectorRegistry

    from producers.bridge import BridgeSettings, run_bridge
    from schemas.runtime.health import Health
    from schemas.runtime.memory import collect_seldom, keep_freed

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    async def body() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        settings = BridgeSettings(mqtt=f"{mqtt_host}:{mqtt_port}", kafka=bootstrap)
        await run_bridge(settings, KeyRing(SECRET), registry=CollectorRegistry(), health=Health(), stop=stop)

    collect_seldom()
    keep_freed()
    asyncio.run(body())


def run_theirs(mqtt_host: str, mqtt_port: int, bootstrap: str) -> None:
    """Run a quix-streams application with an MQTTSource, which has its own child process."""
    from quixstreams import Application
    from quixstreams.sources.community.mqtt import MQTTSource

    state_dir = tempfile.mkdtemp(prefix="quixstreams-")
    application = Application(broker_address=bootstrap, auto_create_topics=False, loglevel="ERROR", state_dir=state_dir)
    topic = application.topic(THEIR_TOPIC, key_serializer="str", value_serializer="bytes")
    source = MQTTSource(
        topic=every_camera_filter(Channel.FRAME),
        client_id="mqtt-source",
        server=mqtt_host,
        port=mqtt_port,
        tls_enabled=False,
        payload_deserializer=None,
        qos=1,
    )
    application.add_source(source, topic)
    application.run()


def run_checkout(checkout: Path, mqtt_host: str, mqtt_port: int, bootstrap: str) -> None:
    """Run the bridge of another checkout until SIGTERM."""
    options = ("--mqtt", f"{mqtt_host}:{mqtt_port}", "--kafka", bootstrap)
    environment = packages_of(checkout) | {"POINTILLIST_FLEET_SECRET": SECRET.hex()}
    os.chdir(checkout)
    os.execve(sys.executable, [*COMMAND, "bridge", *options], environment)


class Brokers(NamedTuple):
    """Running brokers, and a consumer that asks Kafka for offsets."""

    mosquitto: Mosquitto
    kafka: Kafka
    consumer: AIOKafkaConsumer


@asynccontextmanager
async def running_brokers(topics: Mapping[str, TopicSpec]) -> AsyncIterator[Brokers]:
    """Run mosquitto, and Kafka with these topics."""
    with (
        tempfile.TemporaryDirectory(prefix="pointillist-bench-") as folder,
        started(Mosquitto(Path(folder))) as mosquitto,
        started(Kafka(Path(folder))) as kafka,
    ):
        await create_topics(kafka.bootstrap, topics)
        async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap) as consumer:
            yield Brokers(mosquitto, kafka, consumer)


class Offsets:
    """The record count of a topic."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    async def count(self) -> int:
        """Return the number of records ever written."""
        return sum((await self._consumer.end_offsets(self._partitions)).values())

    async def reach(self, goal: int) -> float:
        """Wait until there are `goal` records, and return the monotonic time."""
        give_up = time.monotonic() + PATIENCE_S
        while (now := await self.count()) < goal:
            if time.monotonic() > give_up:
                raise TimeoutError(f"records in Kafka: expected {goal} within {PATIENCE_S:g} s, got {now}")
            await asyncio.sleep(0.02)
        return time.monotonic()


class Side:
    """One bridge: the function that runs it, the process that does its work, and its Kafka topic."""

    def __init__(
        self,
        name: str,
        run: Callable[[str, int, str], None],
        topic: str,
        in_child: bool,
        on_warm: signal.Signals | None = None,
    ) -> None:
        """`on_warm` is a signal that the process gets after the warm-up."""
        self._on_warm = on_warm
        self.name = name
        self.topic = topic
        self._run = run
        self._in_child = in_child
        self._process: BaseProcess | None = None

    def start(self, host: str, port: int, bootstrap: str) -> None:
        """Start it in its own process."""
        self._process = multiprocessing.get_context("spawn").Process(target=self._run, args=(host, port, bootstrap))
        self._process.start()

    def warmed(self) -> None:
        """Send the process the signal `on_warm`, if there is one."""
        if self._process is not None and self._process.pid is not None and self._on_warm is not None:
            os.kill(self._process.pid, self._on_warm)

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process that moves messages."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        if self._in_child:
            (process,) = (c for c in process.children() if "resource_tracker" not in " ".join(c.cmdline()))
        times = process.cpu_times()
        return times.user + times.system

    def stop(self) -> None:
        """Stop it by SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(20)
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
            self._process = None


async def measure(
    side: Side,
    brokers: Brokers,
    frames: list[tuple[str, bytes]],
    messages: int,
    *,
    rate: float = 0.0,
    warm_up: int = WARM_UP,
) -> dict[str, float]:
    """Run one round: start, warm up, measure, stop. A `rate` of 0 messages per second is as fast as possible."""
    broker, offsets = brokers.mosquitto, Offsets(brokers.consumer, side.topic)
    side.start(broker.host, broker.port, brokers.kafka.bootstrap)
    try:
        before = await offsets.count()
        give_up = time.monotonic() + PATIENCE_S
        while await offsets.count() == before:  # one message each half second, until the bridge has subscribed
            if time.monotonic() > give_up:
                raise TimeoutError(f"{side.name}: expected a message in Kafka within {PATIENCE_S:g} s, got none")
            await asyncio.to_thread(publish, broker.host, broker.port, frames, 1)
            await asyncio.sleep(0.5)
        await asyncio.sleep(SETTLE_S)
        before = await offsets.count()
        counts = (warm_up, messages)
        warming, loading = await asyncio.gather(
            *(Load.begin(broker, count, rate, boot) for boot, count in enumerate(counts, FIRST_BOOT + 1))
        )
        await warming.publish()
        await offsets.reach(before + warm_up)
        await asyncio.sleep(SETTLE_S)
        side.warmed()
        cpu = side.cpu_s()
        started = await loading.publish()
        finished = await offsets.reach(before + warm_up + messages)
        await asyncio.sleep(SETTLE_S)
        cpu = side.cpu_s() - cpu
    finally:
        await asyncio.to_thread(side.stop)
    return {"cpu_us_per_message": cpu / messages * 1e6, "messages_per_s": messages / (finished - started)}


class Load:
    """A process that has made its messages and waits to publish them: its start is no part of a measurement."""

    def __init__(self, process: BaseProcess, link: Connection) -> None:
        self._process = process
        self._link = link

    @classmethod
    async def begin(cls, broker: Mosquitto, messages: int, rate: float, boot: int) -> Self:
        """Start the process; return when it is ready. `boot` differs between loads, so that their frames do."""
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(
            target=_load, args=(broker.host, broker.port, messages, rate, boot, there), daemon=True
        )
        process.start()
        there.close()  # so that a process that fails ends the wait for it
        await asyncio.to_thread(here.recv)
        return cls(process, here)

    async def publish(self) -> float:
        """Publish, and return the monotonic time of the first message."""
        self._link.send(True)
        try:
            return float(await asyncio.to_thread(self._link.recv))
        finally:
            await asyncio.to_thread(self._process.join)


def _load(host: str, port: int, messages: int, rate: float, boot: int, link: Connection) -> None:
    frames = signed_frames(KeyRing(SECRET), CAMERAS, messages, boot)
    link.send(True)
    link.recv()
    if rate:
        link.send(publish_paced(host, port, frames, messages, rate))
    else:
        link.send(publish(host, port, frames, messages))


async def compare(messages: int, rounds: int, checkout: Path | None) -> dict[str, Any]:
    """Run all sides in alternating rounds, on brokers started for this comparison."""
    ours = Side("ours", run_ours, KafkaTopic.FRAMES.value, in_child=False)
    theirs = Side("theirs", run_theirs, THEIR_TOPIC, in_child=True)
    sides = [ours, theirs]
    if checkout is not None:
        sides.append(Side("baseline", partial(run_checkout, checkout), KafkaTopic.FRAMES.value, in_child=False))
    raw: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    frames = signed_frames(KeyRing(SECRET), CAMERAS, 1, FIRST_BOOT)
    topics = {**pointillist_topics(PARTITIONS), THEIR_TOPIC: TopicSpec(PARTITIONS)}
    async with running_brokers(topics) as brokers:
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                raw[side.name].append(await measure(side, brokers, frames, messages))
    median = {
        name: {key: statistics.median(found[key] for found in results) for key in results[0]}
        for name, results in raw.items()
    }
    return {
        "cpu_ratio": _cpu_ratio(median, "theirs"),
        **({"cpu_over_baseline": _cpu_ratio(median, "baseline")} if checkout is not None else {}),
        "rate_ratio": median["ours"]["messages_per_s"] / median["theirs"]["messages_per_s"],
        "median": median,
        "rounds": raw,
        "messages": messages,
        "payload_bytes": len(frames[0][1]),
        "machine": machine("quixstreams", "aiokafka", "paho-mqtt"),
    }


def _cpu_ratio(median: dict[str, dict[str, float]], other: str) -> float:
    return median["ours"]["cpu_us_per_message"] / median[other]["cpu_us_per_message"]


def main() -> None:
    """Measure, print, and write the JSON."""
    arguments = command_line(
        __doc__,
        json=Path,
        messages=20000,
        rounds=3,
        baseline=Option(Path, "another checkout, whose packages this Python can run"),
    )
    logging.basicConfig(level=logging.ERROR)
    document = asyncio.run(compare(arguments.messages, arguments.rounds, arguments.baseline))
    report(document | {"command": arguments.command}, arguments.json)


if __name__ == "__main__":
    main()
