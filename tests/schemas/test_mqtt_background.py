"""The MQTT client in a thread: the broker's answer to a message, and failing callbacks."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from schemas.errors import BrokerError
from schemas.transport.access import MqttAccess
from schemas.transport.mqtt.background import BackgroundClient
from schemas.transport.mqtt.packets import text
from schemas.varint import varint
from tests.producers.scripted_broker import scripted_broker
from tests.waiting import PATIENCE_S, until


async def test_a_rejected_message_raises_an_error_and_an_accepted_one_is_sent() -> None:
    async with scripted_broker() as broker:
        client = BackgroundClient(MqttAccess("127.0.0.1", broker.port), lambda *_: None)

        async def publish(number: int, answer: bytes) -> bool:
            sending = asyncio.create_task(asyncio.to_thread(client.publish, "a/b", b"1", wait_s=PATIENCE_S))
            await until(lambda: len(broker.published) == number, "the message")
            broker.send(0x40, number.to_bytes(2, "big") + answer)
            return await sending

        await asyncio.to_thread(client.connect)
        try:
            assert await publish(1, b"")
            with pytest.raises(BrokerError, match="expected it to accept a message on a/b, got 'Not authorized'"):
                await publish(2, b"\x87")
            assert await publish(3, b"\x10\x00")  # success without a subscriber
        finally:
            await asyncio.to_thread(client.close)


async def test_a_failing_callback_does_not_end_the_thread() -> None:
    received: list[str] = []

    def fail(topic: str, _payload: bytes, _retained: bool) -> None:
        received.append(topic)
        raise RecursionError

    async with scripted_broker() as broker:
        client = BackgroundClient(MqttAccess("127.0.0.1", broker.port), fail)
        await asyncio.to_thread(client.connect)
        try:
            await until(lambda: client.is_connected, "the connection")
            with structlog.testing.capture_logs() as logs:
                broker.publish("a/1", b"1", 0)
                broker.publish("a/2", b"2", 0)
                await until(lambda: len(logs) == 2, "both failures logged")
        finally:
            await asyncio.to_thread(client.close)
    assert received == ["a/1", "a/2"]
    assert {(entry["event"], entry["log_level"]) for entry in logs} == {("mqtt_message_failed", "error")}


async def test_a_message_with_properties_that_paho_rejects_is_received() -> None:
    received: list[bytes] = []
    content_type = b"\x03" + text("a\ufeffb".encode())
    properties = varint(len(content_type)) + content_type
    async with scripted_broker() as broker:
        client = BackgroundClient(MqttAccess("127.0.0.1", broker.port), lambda _, payload, __: received.append(payload))
        await asyncio.to_thread(client.connect)
        try:
            await until(lambda: client.is_connected, "the connection")
            broker.send(0x30, text(b"a/b") + properties + b"1")
            await until(lambda: received, "the message")
            assert client.is_connected
        finally:
            await asyncio.to_thread(client.close)
    assert received == [b"1"]
    assert len(broker.connects) == 1
