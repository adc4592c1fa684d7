"""Kafka's jars, which are used only with the digests that the repository lists, and the class archive."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.local import kafka as kafka_module
from infra.local import kafka_jars, service
from infra.local.kafka import Kafka
from infra.local.kafka_archive import write_archive
from infra.local.user_folders import backend_cache
from schemas.errors import BrokerError

ROOT = Path(__file__).parents[2]
JAVA = """#!/bin/sh
case "$*" in *StorageTool*) exit 0;; esac
case "$*" in *ArchiveClassesAtExit=classes.jsa*) made=classes.jsa;; *) made=/dev/null;; esac
trap 'printf classes > $made; exit 143' TERM
echo "$@" >> {started}
touch ready
while :; do sleep 0.01; done
"""
"""A stand-in for Java that writes its archive when it is stopped, if an option requests one."""


def write_maven(folder: Path, *names: str) -> None:
    """Write a stand-in for Maven that copies these jars, each with its name as content."""
    folder.mkdir()
    program = folder / "mvn"
    copies = "".join(f'printf %s {name} > "$out/{name}"\n' for name in names)
    take = 'for each; do case "$each" in -DoutputDirectory=*) out="${each#*=}";; esac; done\nmkdir -p "$out"\n'
    program.write_text(f"#!/bin/sh\n{take}{copies}")
    program.chmod(0o755)


@pytest.fixture
def digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a list with the digests of the stand-in's two jars, and use an empty cache."""
    digests = tmp_path / "jars.sha256"
    monkeypatch.setattr(kafka_jars, "DIGESTS", digests)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_maven(tmp_path / "locked", "kafka_2.13.jar", "lz4.jar")
    monkeypatch.setenv("PATH", f"{tmp_path / 'locked'}:/usr/bin:/bin")
    kafka_jars.main(["--lock"])
    return digests


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run Kafka with the stand-in for Java. Return the file that gets the arguments of each start."""
    java, started = tmp_path / "java" / "bin" / "java", tmp_path / "started"
    java.parent.mkdir(parents=True)
    java.write_text(JAVA.format(started=started))
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    monkeypatch.setattr(Kafka, "_answers", lambda self: (self.folder / "ready").is_file())
    return started


def test_jars_with_their_listed_digests_are_used(digests: Path) -> None:
    found = kafka_jars.kafka_jars()
    assert [jar.name for jar in found] == ["kafka_2.13.jar", "lz4.jar"]
    assert set(kafka_jars.read_digests()) == {"kafka_2.13.jar", "lz4.jar"}


@pytest.mark.parametrize("kept", [[], ["kafka_2.13.jar"]])
def test_jars_deleted_from_the_cache_are_fetched_again(digests: Path, kept: list[str]) -> None:
    found = kafka_jars.kafka_jars()
    for jar in found:
        if jar.name not in kept:
            jar.unlink()
    assert kafka_jars.kafka_jars() == found
    assert all(jar.is_file() for jar in found)


def test_the_jar_of_one_architecture_may_be_missing_on_the_other(digests: Path, tmp_path: Path) -> None:
    names = [f"ciphers-{kind}_64.jar" for kind in ("aarch", "x86")]
    digests.write_text(digests.read_text() + "".join(f"{hashlib.sha256(b'ciphers').hexdigest()}  {n}\n" for n in names))
    program = tmp_path / "locked" / "mvn"
    program.write_text(program.read_text() + f'printf ciphers > "$out/{names[0]}"\n')
    assert names[0] in [jar.name for jar in kafka_jars.kafka_jars()]
    program.unlink()
    kafka_jars.kafka_jars()


@pytest.mark.parametrize("changed", ["lz4.jar", "kafka_2.13.jar"])
def test_a_jar_with_another_digest_is_one_error_line_and_no_jar_is_kept(
    digests: Path, tmp_path: Path, changed: str
) -> None:
    program = tmp_path / "locked" / "mvn"
    program.write_text(program.read_text() + f'printf x >> "$out/{changed}"\n')
    with pytest.raises(
        BrokerError, match=rf"^{changed}: expected SHA-256 [0-9a-f]{{64}}, got [0-9a-f]{{64}}\."
    ) as caught:
        kafka_jars.kafka_jars()
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.jar"))


def test_a_jar_that_is_not_listed_is_rejected(digests: Path, tmp_path: Path) -> None:
    program = tmp_path / "locked" / "mvn"
    program.write_text(program.read_text() + 'printf x > "$out/more.jar"\n')
    with pytest.raises(BrokerError, match=r"more\.jar: expected SHA-256 none in the list, got"):
        kafka_jars.kafka_jars()


def test_jars_and_class_archive_go_to_the_target_of_a_linked_folder(
    digests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = kafka_jars.jar_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    kafka_jars.jar_folder().parent.mkdir(parents=True)
    kafka_jars.jar_folder().symlink_to(real)
    found = kafka_jars.kafka_jars()
    assert found == sorted(real.glob("*.jar")) != []
    archive = kafka_jars.class_archive(sys.executable, found)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kafka_jars.class_archive(sys.executable, kafka_jars.kafka_jars()) == archive
    assert archive.parent == real.parent


def test_a_fetch_takes_no_time_from_the_start_of_kafka_and_is_printed_once(
    digests: Path, starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, passed_s = kafka_jars._fetch, [0.0]

    def fetch_slowly(folder: Path) -> None:
        fetch(folder)
        passed_s[0] += 500

    monkeypatch.setattr(kafka_jars, "_fetch", fetch_slowly)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[0], sleep=time.sleep)
    monkeypatch.setattr(service, "time", clock)
    lines: list[str] = []
    kafka = Kafka(tmp_path / "plain", print_line=lines.append)
    kafka.start()
    kafka.restart()
    kafka.stop()
    assert lines == [f"fetching Kafka {kafka_jars.kafka_version()} by Maven, once for this user"]
    assert passed_s == [500]


def test_the_class_archive_is_written_once_and_used_even_without_tls(
    digests: Path, starts: Path, tmp_path: Path
) -> None:
    kafka = Kafka(tmp_path / "plain")
    kafka.start()
    kafka.stop()
    archive = write_archive()
    assert archive.read_text() == "classes"
    assert write_archive() == archive
    (kafka.folder / "ready").unlink()
    kafka.start()
    kafka.stop()
    first, second, later = starts.read_text().splitlines()
    assert "ArchiveClassesAtExit" not in first
    assert "SharedArchiveFile" not in second
    assert f"-XX:SharedArchiveFile={archive}" in later
    assert "ArchiveClassesAtExit" not in later


def test_kafka_runs_without_a_class_archive_if_the_cache_is_not_writable(
    digests: Path, starts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_module, "kafka_security", lambda *_: "")
    kafka = Kafka(tmp_path / "state", pki=tmp_path)
    kafka.folder.mkdir(parents=True)
    (kafka.folder / "classes.jsa").write_text("a part, of a killed run")
    kafka.start()
    assert not (kafka.folder / "classes.jsa").exists()
    shutil.rmtree(tmp_path / "cache")
    kafka.stop()
    assert not (kafka.folder / "classes.jsa").exists()


def test_the_tests_do_not_write_to_the_user_s_cache() -> None:
    assert not backend_cache().is_relative_to(Path.home() / ".cache")
    assert kafka_jars.jar_folder().is_symlink()


def test_another_list_means_another_folder_of_jars(digests: Path) -> None:
    before = kafka_jars.jar_folder()
    digests.write_text(digests.read_text() + "0" * 64 + "  more.jar\n")
    assert kafka_jars.jar_folder() != before


def test_the_command_fails_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.local.kafka_jars"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: mvn is missing: expected Maven")


def test_the_command_prints_the_folder_of_the_jars(digests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kafka_jars.main([])
    assert capsys.readouterr().out == f"{kafka_jars.jar_folder()}\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exec sleep 60", r"^Maven: expected Kafka within 0\.2 s, got no end\. Check the network\.$"),
        ("echo; echo no host >&2; exit 1", r"^Maven: expected Kafka, got no host\. Check the network\.$"),
        ("exit 0", r"^Maven: expected Kafka, got no jars\. Check the network\.$"),
    ],
    ids=["slow", "failed", "empty"],
)
def test_a_maven_that_fetches_nothing_is_one_error_line(
    digests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    (tmp_path / "locked" / "mvn").write_text(f"#!/bin/sh\n{script}\n")
    monkeypatch.setattr(kafka_jars, "FETCH_S", 0.2 if "sleep" in script else 60.0)
    with pytest.raises(BrokerError, match=message):
        kafka_jars.kafka_jars()
    assert not kafka_jars.jar_folder().exists()


@pytest.mark.parametrize(
    ("script", "got"),
    [("echo starts; echo no room >&2; exit 1", "no room"), ("exit 137", "status 137"), ("exec sleep 60", "no end")],
)
def test_a_failed_storage_tool_is_one_error_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, got: str
) -> None:
    kafka = Kafka(tmp_path)
    kafka.folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(kafka_module, "FORMAT_S", 0.2 if "sleep" in script else 60.0)
    with pytest.raises(BrokerError, match=rf"^Kafka's storage tool: expected it to format .*got {got}\. Check"):
        kafka._format(["/bin/sh", "-c", script])


def test_an_interrupt_of_the_terminal_does_not_reach_the_storage_tool(tmp_path: Path) -> None:
    kafka = Kafka(tmp_path)
    kafka.folder.mkdir(parents=True, exist_ok=True)
    script = "import os, sys; print('alone' if os.getpgrp() == os.getpid() else 'with up'); sys.exit(1)"
    with pytest.raises(BrokerError, match="got alone"):
        kafka._format([sys.executable, "-c", script])
