"""The stored identities of Kafka's nodes, which distinguish a new disk from a lost one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from infra.cli.access import kafka_place
from infra.local.kafka import KafkaNodes
from infra.local.kafka_quorum import SINGLE, Quorum, check_count, kafka_data
from infra.local.ports import Ports
from infra.local.service import instance_names
from infra.local.topics import TopicSpec, acknowledging, pointillist_topics
from infra.state_folder import KAFKA_NODES
from schemas.errors import StateError
from schemas.runtime import atomic_file
from schemas.runtime.json_files import write_json


@pytest.fixture
def quorum(state_dir: Path) -> Quorum:
    return Quorum(state_dir, Ports(state_dir), 3)


def format_disk(state: Path, name: str) -> None:
    """Write a node's disk as the storage tool leaves it."""
    (state / name / "data").mkdir(parents=True)
    (state / name / "data" / "meta.properties").write_text("version=1\n")


def test_the_nodes_keep_their_ports_and_folder_ids_from_one_run_to_the_next(state_dir: Path, quorum: Quorum) -> None:
    quorum.format_options(1)
    reloaded = Quorum(state_dir, Ports(state_dir), 3)
    assert reloaded.controllers == quorum.controllers
    assert [reloaded.port(number) for number in (1, 2, 3)] == [quorum.port(number) for number in (1, 2, 3)]
    assert len({quorum.port(number) for number in (1, 2, 3)}) == 3
    parts = [re.split("[@:]", controller) for controller in quorum.controllers]
    assert [number for number, *_ in parts] == ["1", "2", "3"]
    ids = {folder for *_, folder in parts}
    assert len(ids) == 3
    assert all(len(each) == 22 and not each.startswith("-") for each in ids)


def test_the_nodes_survive_a_power_cut(state_dir: Path, quorum: Quorum, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, synced = atomic_file.sync, []

    def noted(path: Path) -> None:
        synced.append(path.read_text() if path.is_file() else path.name)
        sync(path)

    monkeypatch.setattr(atomic_file, "sync", noted)
    for change in (quorum.format_options, quorum.formatted):
        synced.clear()
        change(1)
        assert synced == [(state_dir / KAFKA_NODES).read_text(), state_dir.name]


def test_a_node_that_was_never_formatted_is_an_initial_controller(quorum: Quorum) -> None:
    assert quorum.format_options(2) == ["--initial-controllers", ",".join(quorum.controllers)]


def test_a_node_that_lost_its_disk_starts_without_a_vote(state_dir: Path, quorum: Quorum) -> None:
    for number, name in enumerate(instance_names(SINGLE, 3)):
        format_disk(state_dir, name)
        quorum.formatted(number + 1)
    shutil.rmtree(state_dir / "kafka-2")
    assert Quorum(state_dir, Ports(state_dir), 3).format_options(2) == ["--no-initial-controllers"]


def test_no_node_is_formatted_if_most_disks_are_lost(state_dir: Path, quorum: Quorum) -> None:
    for number, name in enumerate(instance_names(SINGLE, 3)):
        format_disk(state_dir, name)
        quorum.formatted(number + 1)
    for name in ("kafka-1", "kafka-3"):
        shutil.rmtree(state_dir / name)
    with pytest.raises(StateError, match=r"expected the data of most of Kafka's 3 nodes, got kafka-2"):
        quorum.format_options(3)


def test_another_number_of_nodes_is_accepted_until_a_node_is_formatted(state_dir: Path, quorum: Quorum) -> None:
    check_count(state_dir, 1)
    quorum.format_options(2)
    with pytest.raises(StateError, match="--kafka-nodes: expected 3"):
        check_count(state_dir, 1)


@pytest.mark.parametrize(("existing", "requested"), [(1, 3), (3, 1)])
def test_a_number_of_nodes_other_than_the_folders_is_rejected(state_dir: Path, existing: int, requested: int) -> None:
    if existing == 1:
        format_disk(state_dir, "kafka")
    else:
        Quorum(state_dir, Ports(state_dir), existing).format_options(1)
    check_count(state_dir, existing)
    with pytest.raises(StateError, match=f"--kafka-nodes: expected {existing}, the number of .*, got {requested}"):
        KafkaNodes(state_dir, Ports(state_dir), requested)


def test_the_logs_of_all_existing_nodes_are_found(state_dir: Path) -> None:
    format_disk(state_dir, "kafka")
    assert kafka_data(state_dir) == [state_dir / "kafka" / "data"]
    shutil.rmtree(state_dir / "kafka")
    Quorum(state_dir, Ports(state_dir), 3).format_options(1)
    for name in ("kafka-1", "kafka-3"):
        format_disk(state_dir, name)
    assert kafka_data(state_dir) == [state_dir / name / "data" for name in ("kafka-1", "kafka-3")]


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["kafka"], "127.0.0.1:1"), (["kafka-2", "kafka-1", "kafka-3"], "127.0.0.1:2,127.0.0.1:1,127.0.0.1:3")],
)
def test_the_kafka_address_of_a_state_folder_lists_every_node(state_dir: Path, names: list[str], expected: str) -> None:
    roles = {name: {"listen": f"127.0.0.1:{number + 1}"} for number, name in enumerate(names)}
    write_json(state_dir / "roles.json", {**roles, "mosquitto": {"listen": "127.0.0.1:9"}})
    assert kafka_place(None, state_dir, "audit") == expected


@pytest.mark.parametrize(("copies", "needed"), [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_a_record_is_acknowledged_by_all_replicas_but_one(copies: int, needed: int) -> None:
    assert acknowledging(copies) == needed
    setting = TopicSpec(replication=copies).settings().get("min.insync.replicas")
    assert setting == (None if copies == 1 else str(needed))


def test_our_topics_keep_the_producer_s_compression() -> None:
    assert {each.settings()["compression.type"] for each in pointillist_topics().values()} == {"producer"}


@pytest.mark.parametrize("text", ["{", None])
def test_nodes_without_their_list_do_not_count_as_new(state_dir: Path, text: str | None) -> None:
    Quorum(state_dir, Ports(state_dir), 3).format_options(1)
    file = state_dir / KAFKA_NODES
    if text is None:
        file.unlink()
    else:
        file.write_text(text)
    Quorum(state_dir, Ports(state_dir), 3)  # no node has a disk: they count as new
    file.unlink(missing_ok=True)
    format_disk(state_dir, "kafka-2")
    with pytest.raises(StateError, match=r"kafka-nodes\.json is missing"):
        Quorum(state_dir, Ports(state_dir), 3)


@pytest.mark.parametrize("text", ["{", None])
def test_a_kafka_of_one_node_does_not_start_next_to_nodes_without_their_list(state_dir: Path, text: str | None) -> None:
    for name in instance_names(SINGLE, 3):
        format_disk(state_dir, name)
    if text is not None:
        (state_dir / KAFKA_NODES).write_text(text)
    with pytest.raises(StateError, match=r"kafka-nodes\.json is missing"):
        KafkaNodes(state_dir, Ports(state_dir), 1)
    assert kafka_data(state_dir) == [state_dir / name / "data" for name in instance_names(SINGLE, 3)]
