"""The bridge MQTT → Kafka: PUBACK and confirmation only after Kafka has the record, dead letters for the rest."""

from __future__ import annotations

from producers.bridge.service import run_bridge
from producers.bridge.settings import BridgeSettings

__all__ = ["BridgeSettings", "run_bridge"]
