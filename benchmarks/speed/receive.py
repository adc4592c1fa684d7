"""The reference cost of the broker side: the CPU time of paho for one received QoS 1 message, and nothing else."""

from __future__ import annotations

import multiprocessing
import threading
import time
from multiprocessing.connection import Connection

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

TOPIC = "pointillist/benchmark/receive"
RECEIVE_MAXIMUM = 1000


def bare_receive_seconds(host: str, port: int, payload: bytes, messages: int) -> float:
    """Return the CPU seconds per message of a process in which paho receives and acknowledges `payload`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    receiver = context.Process(target=_receive, args=(host, port, messages, there), daemon=True)
    receiver.start()
    there.close()  # so that a receiver that fails ends the wait for it
    assert here.recv() == "subscribed"
    _publish(host, port, payload, messages)
    seconds: float = here.recv()
    receiver.join()
    return seconds


def _receive(host: str, port: int, messages: int, report: Connection) -> None:
    left = [messages]
    started = [0.0]
    done = threading.Event()

    def on_message(client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if left[0] == messages:
            started[0] = time.process_time()
        left[0] -= 1
        if not left[0]:
            done.set()
            client.disconnect()

    def on_connect(client: mqtt.Client, *_: object) -> None:
        client.subscribe(TOPIC, qos=1)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.on_message = on_message
    client.on_subscribe = lambda *_: report.send("subscribed")
    client.on_connect = on_connect
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's are untyped
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    client.connect(host, port, properties=properties)
    client.loop_forever()
    report.send((time.process_time() - started[0]) / (messages - 1))


def _publish(host: str, port: int, payload: bytes, messages: int) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    room = threading.Semaphore(RECEIVE_MAXIMUM)
    client.on_publish = lambda *_: room.release()
    client.max_inflight_messages_set(RECEIVE_MAXIMUM)
    client.connect(host, port)
    client.loop_start()
    for _ in range(messages):
        room.acquire()
        client.publish(TOPIC, payload, qos=1)
    for _ in range(RECEIVE_MAXIMUM):
        room.acquire()
    client.disconnect()
    client.loop_stop()
