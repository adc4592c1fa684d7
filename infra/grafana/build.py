"""The dashboards' JSON in Grafana's format.

fleet      frames that the cameras send, and their fates
stages     rate, errors and duration of each stage (RED)
resources  utilisation, saturation and errors of the stages' resources (USE)
machines   Kafka, mosquitto, machines and GPUs
"""

from __future__ import annotations

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from infra.grafana.fleet import fleet
from infra.grafana.machines import machines
from infra.grafana.resources import resources
from infra.grafana.stages import stages

BOARDS = {"fleet": fleet, "stages": stages, "resources": resources, "machines": machines}


def rendered() -> dict[str, str]:
    """Return the JSON of each dashboard by its file's name."""
    return {
        f"{name}.json": JSONEncoder(sort_keys=True, indent=2).encode(build().build()) + "\n"
        for name, build in BOARDS.items()
    }
