from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

import pytest

from infra.local import ports
from infra.local.ports import LOOPBACK, Ports, free_port, is_free


def test_a_port_is_stored_by_its_name_across_runs(state_dir: Path) -> None:
    ports = Ports(state_dir)
    kafka, mosquitto = ports.allocate("kafka"), ports.allocate("mosquitto")
    assert kafka != mosquitto
    reloaded = Ports(state_dir)
    assert (reloaded.allocate("mosquitto"), reloaded.allocate("kafka")) == (mosquitto, kafka)


def test_a_port_in_use_is_replaced_and_the_new_one_is_stored(state_dir: Path) -> None:
    port = Ports(state_dir).allocate("kafka")
    with socket.create_server((LOOPBACK, port)):
        assert not is_free(port)
        other = Ports(state_dir).allocate("kafka")
        assert other != port
    assert Ports(state_dir).allocate("kafka") == other


def test_a_port_with_connections_in_time_wait_is_free(state_dir: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((LOOPBACK, port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    assert is_free(port)


def test_ports_are_outside_the_range_of_outgoing_connections() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert all(not low <= free_port() <= high for _ in range(50))


def test_a_damaged_file_of_ports_is_replaced(state_dir: Path) -> None:
    (state_dir / "ports.json").write_text('{"kafka": "no", "mosq')
    assert Ports(state_dir).allocate("kafka") > 0


def test_two_names_never_get_one_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter((20_001, 20_001, 20_002))
    monkeypatch.setattr(ports, "is_free", lambda _: True)
    monkeypatch.setattr(ports, "free_port", lambda: next(drawn))
    allocated = Ports(tmp_path)
    assert (allocated.allocate("bridge"), allocated.allocate("console")) == (20_001, 20_002)
    assert (Ports(tmp_path).allocate("bridge"), Ports(tmp_path).allocate("console")) == (20_001, 20_002)


@pytest.mark.parametrize(("number", "raised"), [(errno.ENOSPC, False), (errno.EACCES, True)])
def test_a_full_disk_prevents_only_the_storage_of_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raised: bool
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(ports, "write_json", fail)
    with pytest.raises(OSError, match="no") if raised else contextlib.nullcontext():
        assert Ports(tmp_path).allocate("bridge") > 0
