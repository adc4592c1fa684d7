"""The recorders' progress in Kafka, by which bridges measure how many records the database does not have yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from schemas.topics import RECORDED_GROUP
from schemas.transport.access import KafkaAddress
from schemas.transport.kafka.admin import Admin
from schemas.transport.kafka.clients import REQUEST_S


class Progress:
    """Commits to `RECORDED_GROUP`. Its client stays while Kafka answers, and is replaced after a failure."""

    def __init__(self, address: KafkaAddress) -> None:
        self._address = address
        self._admin: Admin | None = None

    async def commit(self, offsets: Mapping[TopicPartition, tuple[int, str]]) -> None:
        """Commit offsets with their notes. An error of Kafka is ignored: the next commit replaces this one."""
        if not offsets:
            return
        try:
            async with asyncio.timeout(REQUEST_S):
                if self._admin is None:
                    self._admin = await Admin(self._address).__aenter__()
                await self._admin.commit(RECORDED_GROUP, offsets)
        except (KafkaError, OSError, TimeoutError):
            await self.close()

    async def close(self) -> None:
        """Close the client."""
        admin, self._admin = self._admin, None
        if admin is not None:
            await admin.close()
