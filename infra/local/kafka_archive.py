"""Kafka's Java class archive, written before the first run: `python -m infra.local.kafka_archive`.

With it, each start of Kafka takes about half the CPU. Without this command, the first clean stop of a run writes it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from infra.local.kafka_jars import class_archive, java_binary, kafka_jars
from schemas.errors import BrokerError

WRITTEN_WITHIN_S = 120.0


def write_archive() -> Path:
    """Start and stop a Kafka with TLS, in a folder of its own, if there is no archive; return the archive's path.

    Raises BrokerError if Java or Kafka's jars are missing, Kafka does not start, or it writes no archive.
    """
    archive = class_archive(java_binary(), kafka_jars())
    if not archive.is_file():
        from infra.local.kafka import Kafka
        from infra.pki.authority import LOCAL_HOSTS, Authority
        from infra.pki.roles import Roles
        from infra.state_folder import Layout

        with tempfile.TemporaryDirectory(prefix="pointillist-kafka-") as scratch:
            layout = Layout(Path(scratch))
            Roles(Authority.create(layout.pki)).ensure(("kafka", "health"), LOCAL_HOSTS)
            kafka = Kafka(layout.folder, pki=layout.pki)
            kafka.start()
            kafka.stop(WRITTEN_WITHIN_S)
        if not archive.is_file():
            raise BrokerError(
                f"{archive}: expected Kafka to write its class archive, got none. Its starts take longer."
            )
    return archive


if __name__ == "__main__":
    try:
        print(write_archive())
    except BrokerError as error:
        sys.exit(f"error: {error}")
