"""Kafka's program files: fetched once by Maven into the user's cache, shared by all runs.

`pom.xml` names versions, `jars.sha256` the digest of each jar: a fetched jar is used only with that digest. `python -m
infra.local.kafka_jars --lock` writes the list again, for both architectures.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

from infra.local.service import INFRA
from infra.local.user_folders import cache_folder
from schemas.errors import BrokerError
from schemas.runtime.file_lock import lock_file

POM = INFRA / "kafka" / "pom.xml"
DIGESTS = INFRA / "kafka" / "jars.sha256"
"""Digests in the form of sha256sum: one line with a digest and a file name for each jar."""
FETCH_S = 600.0
_ARCHITECTURE = re.compile(r"-(aarch|x86)_64(?=\.jar$)")


def kafka_version() -> str:
    """Return the version that `pom.xml` names."""
    version = ElementTree.parse(POM).findtext("{*}properties/{*}kafka.version")
    if version is None:
        raise BrokerError(f"{POM}: expected the property kafka.version, got none. Correct the file.")
    return version


def java_binary() -> str:
    """Return the Java program. Raises BrokerError that names the package when it is not installed."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    if found is None:
        raise BrokerError(
            "java is missing: expected Java 17 or later. Install the Debian package default-jre-headless."
        )
    return found


def jar_folder() -> Path:
    """Return the folder of the fetched and checked jars; another pom or list has another folder."""
    digest = hashlib.sha256(POM.read_bytes() + DIGESTS.read_bytes()).hexdigest()[:8]
    return cache_folder() / f"kafka-{kafka_version()}-{digest}"


def kafka_jars(print_line: Callable[[str], None] | None = None) -> list[Path]:
    """Return Kafka's jars in a fixed order, fetched when the cache lacks one. `print_line` gets a line before that.

    Raises BrokerError when Maven is missing or cannot fetch them, or a jar's digest differs from `jars.sha256`.
    """
    folder = jar_folder().resolve()
    if not is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = lock_file(folder.parent / "fetch.lock", wait=True)
        try:
            if not is_complete(folder):
                if print_line is not None:
                    print_line(f"fetching Kafka {kafka_version()} by Maven, once for this user")
                _fetch(folder)
        finally:
            os.close(lock)
    return sorted(folder.glob("*.jar"))


def is_complete(folder: Path) -> bool:
    """Return whether `folder` has each listed jar, of one architecture. Cleaners of caches delete old files."""
    found = {_ARCHITECTURE.sub("", jar.name) for jar in folder.glob("*.jar")}
    return found == {_ARCHITECTURE.sub("", name) for name in read_digests()}


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        jars = Path(scratch) / "jars"
        _copy(jars)
        check_digests(jars, read_digests())
        if folder.is_dir():
            shutil.rmtree(folder)
        jars.rename(folder)


def _copy(jars: Path, *options: str) -> None:
    """Fetch the jars into the folder `jars` by Maven."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError("mvn is missing: expected Maven, which fetches Kafka. Install the Debian package maven.")
    command = [
        maven, "-q", "-B", *options, "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, check=False)
    except subprocess.TimeoutExpired:
        raise BrokerError(f"Maven: expected Kafka within {FETCH_S:g} s, got no end. Check the network.") from None
    if done.returncode != 0 or not any(jars.glob("kafka_*.jar")):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise BrokerError(f"Maven: expected Kafka, got {lines[0][:300] if lines else 'no jars'}. Check the network.")


def read_digests() -> dict[str, str]:
    """Return the SHA-256 of each jar by its name, of both architectures."""
    pairs = (line.split() for line in DIGESTS.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, name in pairs}


def check_digests(jars: Path, expected: Mapping[str, str]) -> None:
    """Raise BrokerError for the first jar in the folder `jars` that is not listed or has another digest."""
    for jar in sorted(jars.glob("*.jar")):
        found = _sha256(jar)
        if found != expected.get(jar.name):
            listed = expected.get(jar.name, "none in the list")
            raise BrokerError(
                f"{jar.name}: expected SHA-256 {listed}, got {found}. Kafka is not started from it: compare "
                f"{DIGESTS.name} with the publisher's digests."
            )


def write_digests() -> None:
    """Write the list again from Maven's present files, with the checksums of its repository."""
    with tempfile.TemporaryDirectory() as scratch:
        jars = Path(scratch) / "jars"
        _copy(jars, "--strict-checksums", "--activate-profiles", "amd64,arm64")
        lines = [f"{_sha256(jar)}  {jar.name}\n" for jar in sorted(jars.glob("*.jar"))]
    DIGESTS.write_text("".join(lines), encoding="utf-8")


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def class_archive(java: str, jars: list[Path]) -> Path:
    """Return the path of the Java class archive for this Java and these jars, next to the jars' folder. The first clean
    stop of a Kafka with TLS creates it.
    """
    program = Path(java).resolve()
    identity = f"{program}\n{program.stat().st_mtime_ns}\n" + "\n".join(str(jar) for jar in jars)
    return jars[0].parent.parent / f"kafka-tls-classes-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.jsa"


def main(arguments: Sequence[str]) -> None:
    """Fetch the jars and print their folder, or with `--lock` write their digests."""
    if list(arguments) == ["--lock"]:
        write_digests()
        print(DIGESTS)
    else:
        print(kafka_jars()[0].parent)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BrokerError as error:
        sys.exit(f"error: {error}")
