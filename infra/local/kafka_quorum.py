"""The nodes of a Kafka that has several: who they are, and what a node's disk must hold before it takes part.

They know each other's controllers by number, address and the id of the folder that holds the metadata log (KIP-853). A
node whose disk was lost begins with another folder, and so with another id: it is no voter until the others have let
it in again, after it has caught up (`controller.quorum.auto.join.enable`, KIP-1186). By number and address alone an
empty node could vote for one that lacks what was committed with its help.
"""

from __future__ import annotations

import base64
import threading
import uuid
from pathlib import Path
from typing import Final

from infra.local.files import read_json, write_json
from infra.local.ports import LOOPBACK, Ports
from schemas.errors import StateError

NODES_FILE: Final = "kafka-nodes.json"
SINGLE: Final = "kafka"


def node_names(count: int) -> list[str]:
    """`kafka` alone, or `kafka-1`, `kafka-2`, …"""
    return [SINGLE] if count == 1 else [f"{SINGLE}-{number + 1}" for number in range(count)]


class Quorum:
    """The controllers of `count` nodes, two or more; `kafka-nodes.json` in the state folder remembers them.

    Their ports stay for good: Kafka's own log names them.
    """

    def __init__(self, state: Path, ports: Ports, count: int) -> None:
        """Raises StateError when the folder's Kafka has another number of nodes, or nodes that nothing names."""
        check_count(state, count)
        self._state = state
        self._file = state / NODES_FILE
        self._changing = threading.Lock()  # nodes are started from several threads
        found = read_json(self._file)
        self._formatted: set[int] = set(found.get("formatted", ()))
        self.controllers: list[str] = found.get("controllers", [])
        """Of each node `NUMBER@HOST:PORT:FOLDER_ID`, as `kafka.tools.StorageTool` is told of them."""
        if not self.controllers:
            if any((state / name / "data").is_dir() for name in node_names(count)):
                raise StateError(
                    f"expected {self._file} beside the data of Kafka's nodes, which it names: bring it back"
                )
            self.controllers = [
                f"{number + 1}@{LOOPBACK}:{ports.take(f'{name}-controller')}:{_folder_id()}"
                for number, name in enumerate(node_names(count))
            ]
            self._write()

    def port(self, number: int) -> int:
        """The controller's port of the node `number`, from 1 on."""
        return int(self._address(self.controllers[number - 1]).rpartition(":")[2])

    def settings(self) -> str:
        """The lines of Kafka's configuration that say where controllers are, and let one in again."""
        places = ",".join(map(self._address, self.controllers))
        return f"controller.quorum.bootstrap.servers={places}\ncontroller.quorum.auto.join.enable=true"

    def format_options(self, number: int) -> list[str]:
        """What the storage tool is told for the empty disk of node `number`: of a new Kafka, or of one that lost it.

        Raises StateError when most nodes have lost theirs: what was acknowledged cannot be known any more.
        """
        if number not in self._formatted:
            return ["--initial-controllers", ",".join(self.controllers)]
        names = node_names(len(self.controllers))
        whole = [name for name in names if (self._state / name / "data" / "meta.properties").is_file()]
        if 2 * len(whole) <= len(names):
            raise StateError(
                f"expected the data of most of Kafka's {len(names)} nodes in {self._state}, there is that of "
                f"{', '.join(whole) or 'none'}: bring a disk back, or begin with another state folder"
            )
        return ["--no-initial-controllers"]

    def formatted(self, number: int) -> None:
        """Node `number` has its folder: if it is empty one day, it was lost."""
        with self._changing:
            if number not in self._formatted:
                self._formatted.add(number)
                self._write()

    def _write(self) -> None:
        write_json(self._file, {"controllers": self.controllers, "formatted": sorted(self._formatted)})

    @staticmethod
    def _address(controller: str) -> str:
        return controller.partition("@")[2].rpartition(":")[0]


def check_count(state: Path, count: int) -> None:
    """Raise StateError when the Kafka of this state folder has another number of nodes than `count`."""
    found = len(read_json(state / NODES_FILE).get("controllers", ()))
    if not found and (state / SINGLE / "data").is_dir():
        found = 1
    if found and found != count:
        raise StateError(
            f"expected --kafka-nodes {found}, for so many has the Kafka of {state}, got {count}: "
            "another number begins with another state folder"
        )


def kafka_data(state: Path) -> list[Path]:
    """The folders in which the nodes of this state folder's Kafka keep their logs, those that are there."""
    count = len(read_json(state / NODES_FILE).get("controllers", ())) or 1
    return [folder for name in node_names(count) if (folder := state / name / "data").is_dir()]


def _folder_id() -> str:
    """A random UUID as Kafka writes it; none begins with a dash, which would look like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
