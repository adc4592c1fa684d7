"""The nodes of a Kafka with several: their identities, and the required content of a node's disk at its start.

The nodes identify each other's controllers by number, address and the id of the folder with the metadata log (KIP-853).
A node that has lost its disk begins with another folder, and so with another id. It is no voter until it has caught up
and the others admit it again (`controller.quorum.auto.join.enable`, KIP-1186). With number and address alone, an empty
node could elect a leader that lacks committed records.
"""

from __future__ import annotations

import base64
import re
import threading
import uuid
from pathlib import Path
from typing import Final

from infra.local.ports import LOOPBACK, Ports
from infra.local.service import instance_names
from infra.state_folder import KAFKA_NODES
from schemas.errors import StateError
from schemas.runtime.json_files import read_json, write_json

SINGLE: Final = "kafka"
_NODE: Final = re.compile(rf"{SINGLE}(-\d+)?")


class Quorum:
    """The controllers of `count` nodes, two or more; `kafka-nodes.json` in the state folder lists them.

    Their ports never change: Kafka's own log names them.
    """

    def __init__(self, state: Path, ports: Ports, count: int) -> None:
        """Start from the folder's nodes, or plan new ones. Raises StateError as `check_count` does."""
        check_count(state, count)
        self._state = state
        self._file = state / KAFKA_NODES
        self._changing = threading.Lock()  # nodes are started from several threads
        found = read_json(self._file)
        self._formatted: set[int] = set(found.get("formatted", ()))
        self.controllers: list[str] = found.get("controllers", [])
        """`NUMBER@HOST:PORT:FOLDER_ID` for each node, as `kafka.tools.StorageTool` takes them."""
        if not self.controllers:
            self.controllers = [
                f"{number + 1}@{LOOPBACK}:{ports.allocate(f'{name}-controller')}:{_folder_id()}"
                for number, name in enumerate(instance_names(SINGLE, count))
            ]

    def port(self, number: int) -> int:
        """Return the controller's port of the node `number`, from 1 on."""
        return int(self._address(self.controllers[number - 1]).rpartition(":")[2])

    def settings(self) -> str:
        """Return the lines of Kafka's configuration with the controllers, and with automatic rejoining."""
        places = ",".join(map(self._address, self.controllers))
        return f"controller.quorum.bootstrap.servers={places}\ncontroller.quorum.auto.join.enable=true"

    def format_options(self, number: int) -> list[str]:
        """Return the storage tool's arguments for the empty disk of node `number`: of a new Kafka, or after a loss.

        For a new one, `kafka-nodes.json` is written.
        Raises StateError when most nodes have lost their disks: the acknowledged records can no longer be determined.
        """
        if number not in self._formatted:
            # Before the first disk, which names the others. Until then, another number of nodes can be chosen.
            with self._changing:
                self._write()
            return ["--initial-controllers", ",".join(self.controllers)]
        names = instance_names(SINGLE, len(self.controllers))
        whole = [name for name in names if (self._state / name / "data" / "meta.properties").is_file()]
        if 2 * len(whole) <= len(names):
            raise StateError(
                f"{self._state}: expected the data of most of Kafka's {len(names)} nodes, got "
                f"{', '.join(whole) or 'none'}. Restore a disk, or choose another state folder."
            )
        return ["--no-initial-controllers"]

    def formatted(self, number: int) -> None:
        """Note that node `number` has its folder: an empty folder later means a loss."""
        with self._changing:
            if number not in self._formatted:
                self._formatted.add(number)
                self._write()

    def _write(self) -> None:
        nodes = {"controllers": self.controllers, "formatted": sorted(self._formatted)}
        write_json(self._file, nodes, durably=True)

    @staticmethod
    def _address(controller: str) -> str:
        return controller.partition("@")[2].rpartition(":")[0]


def check_count(state: Path, count: int) -> None:
    """Raise StateError if the Kafka of this state folder has another number of nodes than `count`.

    Raise it also if several nodes have data but `kafka-nodes.json` is missing or damaged.
    """
    found = len(read_json(state / KAFKA_NODES).get("controllers", ()))
    data = kafka_data(state)
    if not found and any(folder.parent.name != SINGLE for folder in data):
        raise StateError(
            f"{state / KAFKA_NODES} is missing: it names the Kafka nodes of the data in its folder. Restore it."
        )
    if not found and data:
        found = 1
    if found and found != count:
        raise StateError(
            f"--kafka-nodes: expected {found}, the number of {state}, got {count}. For another number, choose "
            "another state folder."
        )


def kafka_data(state: Path) -> list[Path]:
    """Return the existing log folders of the Kafka nodes in this state folder, in the order of their names."""
    return [folder for folder in sorted(state.glob(f"{SINGLE}*/data")) if _NODE.fullmatch(folder.parent.name)]


def _folder_id() -> str:
    """Return a random UUID in Kafka's form; none begins with a dash, which would look like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
