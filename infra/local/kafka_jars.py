"""Kafka's program files: fetched once by Maven into the user's cache, shared by all runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from infra.local.service import INFRA
from schemas.errors import BrokerError

POM = INFRA / "kafka" / "pom.xml"
FETCH_S = 600.0


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/pointillist`, by default `~/.cache/pointillist`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pointillist"


def kafka_version() -> str:
    """The version that `pom.xml` asks for."""
    version = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    if version is None:
        raise BrokerError(f"expected the property kafka.version in {POM}, found none")
    return version


def java_binary() -> str:
    """Where java is. Raises BrokerError that names the package when it is not installed."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise BrokerError(
            "expected Java 17 or later, found no program java: install the Debian package default-jre-headless"
        )
    return found


def jar_folder() -> Path:
    """Where the jars are once they have been fetched: another pom makes another folder, so none is ever out of date."""
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:8]
    return cache_folder() / f"kafka-{kafka_version()}-{digest}"


def kafka_jars() -> list[Path]:
    """Kafka's jars in a fixed order, fetched when the cache has none.

    Raises BrokerError when Maven is missing or cannot fetch them.
    """
    folder = jar_folder()
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "fetch.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _fetch(folder)
    return sorted(folder.glob("*.jar"))


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("expected Maven to fetch Kafka, found no program mvn: install the Debian package maven")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        jars = Path(scratch) / "jars"
        command = [
            maven,
            "-q",
            "-B",
            "-f",
            str(POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={jars}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
        except subprocess.TimeoutExpired:
            raise BrokerError(f"expected Maven to fetch Kafka within {FETCH_S:g} s, it is not done") from None
        if done.returncode != 0 or not any(jars.glob("kafka_*.jar")):
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise BrokerError(f"expected Maven to fetch Kafka, got: {lines[0][:300] if lines else 'no jars'}")
        jars.rename(folder)


def class_archive(java: str, jars: list[Path], *, tls: bool = False) -> Path:
    """Where the Java class archive for this Java and these jars is, or will be after a first clean stop.

    Kafka with `tls` loads other classes, which are half of what it starts with.
    """
    program = Path(java).resolve()
    kind = "kafka-tls-classes" if tls else "kafka-classes"
    identity = f"{program}\n{program.stat().st_mtime_ns}\n" + "\n".join(str(jar) for jar in jars)
    return cache_folder() / f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.jsa"


if __name__ == "__main__":
    print(kafka_jars()[0].parent)
