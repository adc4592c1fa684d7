"""Apache Kafka on loopback ports: one node or several, each broker and controller in one process (KRaft)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from infra.local.child_environment import inherited
from infra.local.kafka_jars import class_archive, java_binary, kafka_jars
from infra.local.kafka_quorum import SINGLE, Quorum, check_count
from infra.local.ports import Ports
from infra.local.service import INFRA, Service, fill, instance_names
from infra.local.topics import acknowledging
from infra.pki.kafka_rights import PRINCIPAL_RULES, super_users
from infra.pki.role_generations import role_generations
from infra.pki.roles import role_folder, role_tls
from infra.state_folder import write_secret
from schemas.errors import BrokerError
from schemas.limits import MAX_BROKER_BYTES
from schemas.runtime.atomic_file import replacing, write_text
from schemas.transport.access import (
    AUTHORITY_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    KafkaAccess,
    KafkaAddress,
)

SERVER_TEMPLATE = INFRA / "kafka" / "server.properties.in"
LOGGING = INFRA / "kafka" / "log4j2.properties"
CLUSTER_ID = "cG9pbnRpbGxpc3QtbG9jYQ"
FORMAT_S = 60.0
ANSWER_S = 2.0
NEW_ARCHIVE = "classes.jsa"
STOPPED_BY_SIGTERM = 143

_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",  # it samples counters 20 times a second, also without a reader
    "-Xlog:cds=off",
    "-Xlog:cds+dynamic=off",
    "-Djava.awt.headless=true",
    "-Dlog4j2.disableJmx=true",
)

_NATIVE_CIPHERS = (
    # The second compiler gains nothing that is worth a third of Kafka's CPU in its first minute.
    "-XX:TieredStopAtLevel=1",
    f"-Djava.security.properties={INFRA / 'kafka' / 'java.security'}",
)
"""Ciphers with AES in native code; Java's own AES is native only from its second, optimising compiler on."""

_CIPHERS = (
    "TLS_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
)
"""AES alone: every machine here has instructions for it, and Java uses none for another cipher."""


class Kafka(Service):
    """One Kafka node. Its records stay in the state folder across restarts.

    A single node takes other ports if it must. One of several keeps its own ports, because the others use them.
    """

    role = "kafka"
    port_names: tuple[str, ...] = ("kafka", "kafka-controller")

    def __init__(
        self,
        state: Path,
        ports: Ports | None = None,
        *,
        ready_s: float = 60.0,
        pki: Path | None = None,
        quorum: Quorum | None = None,
        number: int = 1,
        print_line: Callable[[str], None] = print,
    ) -> None:
        """`pki` is the folder of the authority for all clients; None accepts every client with all rights.

        `quorum` has the nodes, and this node has the `number`; None is a Kafka of one node. `print_line` prints a line
        for the user.
        """
        if quorum is not None:
            self.role = instance_names(SINGLE, len(quorum.controllers))[number - 1]
            self.port_names = (self.role, f"{self.role}-controller")
        ports = ports or Ports(state)
        super().__init__(state, ports, ready_s=ready_s)
        self._pki = pki.resolve() if pki is not None else None
        self._quorum = quorum
        self._number = number
        self._print_line = print_line
        if quorum is not None:
            self._ports = {self.role: ports.allocate(self.role), f"{self.role}-controller": quorum.port(number)}

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients."""
        return self.listen

    def access(self, role: str) -> KafkaAddress:
        """Return the address for `role`, with its access."""
        return self.listen if self._pki is None else KafkaAccess(self.listen, role_tls(self._pki, role))

    @property
    def data(self) -> Path:
        """The folder of its logs: those of the partitions and of Kafka's own metadata."""
        return self.folder / "data"

    def _fetch(self) -> None:
        java_binary()  # without it, the jars are useless
        kafka_jars(self._print_line)

    def _environment(self) -> dict[str, str]:
        """Return the environment with Java's options, and a locale in which Java reads and writes any path of the state
        folder.
        """
        return inherited("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS") | {"LC_ALL": "C.UTF-8"}

    def _command(self) -> list[str]:
        controller_port = self._ports[self.port_names[1]]
        # A single node has its address in the settings and not in the log, so its port may change.
        quorum = f"controller.quorum.voters={self._number}@{self.host}:{controller_port}"
        copies = 1
        if self._quorum is not None:
            quorum, copies = self._quorum.settings(), len(self._quorum.controllers)
        # Kafka splits folder names at commas and interprets backslashes: it runs in its folder, with relative names.
        fill(
            SERVER_TEMPLATE,
            self.folder / "server.properties",
            HOST=self.host,
            PORT=self.port,
            CONTROLLER_PORT=controller_port,
            NODE=self._number,
            QUORUM=quorum,
            COPIES=copies,
            IN_SYNC=acknowledging(copies),
            MAX_BYTES=MAX_BROKER_BYTES,
            PROTOCOL="PLAINTEXT" if self._pki is None else "SSL",
            SECURITY="" if self._pki is None else kafka_security(self._pki, self.folder, self.role),
        )
        write_text(self.folder / "log4j2.properties", LOGGING.read_text())
        jvm = self._jvm()
        if not (self.data / "meta.properties").is_file():
            self._format(jvm, *(self._quorum.format_options(self._number) if self._quorum is not None else ()))
        if self._quorum is not None:
            self._quorum.formatted(self._number)
        # Without TLS, Kafka loads half as many classes: its archive would save the others half as much.
        if self._pki is not None and not self._archive.is_file():
            (self.folder / NEW_ARCHIVE).unlink(missing_ok=True)  # a killed run leaves a part of one
            jvm = [*jvm, f"-XX:ArchiveClassesAtExit={NEW_ARCHIVE}"]
        return [*jvm, "kafka.Kafka", "server.properties"]

    def _jvm(self) -> list[str]:
        java = java_binary()
        jars = kafka_jars()
        self._archive = class_archive(java, jars)
        native = [jar for jar in jars if "CorrettoCrypto" in jar.name]
        options: list[str] = []
        path = [jar for jar in jars if jar not in native]
        if self._archive.is_file():
            options = [f"-XX:SharedArchiveFile={self._archive}", *(_NATIVE_CIPHERS if native else ())]
            # Behind all others, because an archive is valid for a prefix of the class path. Java 17 crashes when it
            # writes an archive with these signed classes, so the run that writes it omits them.
            path += native
        # Listed rather than matched by a wildcard, which has no order.
        names = os.pathsep.join(map(str, path))
        return [java, *_JVM, *options, "-Dlog4j2.configurationFile=log4j2.properties", "-cp", names]

    def _format(self, jvm: list[str], *options: str) -> None:
        command = [*jvm, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", "server.properties", *options]
        try:
            done = subprocess.run(
                command, cwd=self.folder, capture_output=True, text=True, timeout=FORMAT_S, check=False,
                env=self._environment(),
                start_new_session=True,  # an interrupt of the terminal is for `up` alone, as with the servers
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise BrokerError(
                f"Kafka's storage tool: expected it to format within {FORMAT_S:g} s, got no end. Check the disk "
                "of the state folder."
            ) from None
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise BrokerError(
                f"Kafka's storage tool: expected it to format {self.data}, got "
                f"{lines[-1][:300] if lines else f'status {done.returncode}'}. Check the disk of the state folder."
            )

    def stop(self, deadline_s: float = 15.0) -> None:
        """Stop it in good order; with TLS, the first clean stop on a machine leaves the class archive for later starts.

        Writing takes the time of one more start, once; each later start takes about half the CPU.
        """
        super().stop(deadline_s)
        new = self.folder / NEW_ARCHIVE
        if self._child is not None and self.poll() == STOPPED_BY_SIGTERM and new.is_file():
            # The cache may be on another disk: copy next to the target, then rename. It may be full, or read-only.
            with suppress(OSError), replacing(self._archive) as fresh:
                shutil.copyfile(new, fresh)
        new.unlink(missing_ok=True)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), 0.5).close()
        except OSError:
            return False
        # The caller's thread may have a running event loop, which must stay untouched.
        with ThreadPoolExecutor(max_workers=1) as apart:
            return apart.submit(lambda: asyncio.run(answers_kafka(self.access("health"), node=self._number))).result()


class KafkaNodes:
    """All nodes of a Kafka, one or several; each record is on all of them."""

    def __init__(
        self,
        state: Path,
        ports: Ports,
        count: int = 1,
        pki: Path | None = None,
        print_line: Callable[[str], None] = print,
    ) -> None:
        """Raises StateError when the Kafka of this state folder has another number of nodes."""
        check_count(state, count)
        quorum = Quorum(state, ports, count) if count > 1 else None
        self.nodes = [
            Kafka(state, ports, pki=pki, quorum=quorum, number=number + 1, print_line=print_line)
            for number in range(count)
        ]
        self._pki = pki

    def reserve(self) -> str:
        """Choose the ports of each node before its first start; return `bootstrap`."""
        return ",".join(node.reserve() for node in self.nodes)

    @property
    def bootstrap(self) -> str:
        """`host:port` of each node, for clients."""
        return ",".join(node.listen for node in self.nodes)

    def access(self, role: str) -> KafkaAddress:
        """Return the addresses for `role`, with its access."""
        return self.bootstrap if self._pki is None else KafkaAccess(self.bootstrap, role_tls(self._pki, role))


def kafka_security(pki: Path, folder: Path, role: str = "kafka") -> str:
    """Return the lines of Kafka's configuration that accept clients of the authority in `pki` at the node `role`.

    The keystore is PEM, a file in `folder`, and needs none of Java's tools. A certificate's name, with its generation
    and without the number of an instance, is a user's name. A camera's name holds a slash and is no user's.
    """
    own = role_folder(pki, role)
    write_secret(folder / "keystore.pem", (own / KEY_FILE).read_text() + (own / CERTIFICATE_FILE).read_text())
    write_text(folder / "truststore.pem", (own / AUTHORITY_FILE).read_text())
    return "\n".join(
        (
            "ssl.keystore.type=PEM",
            "ssl.keystore.location=keystore.pem",
            "ssl.truststore.type=PEM",
            "ssl.truststore.location=truststore.pem",
            "ssl.client.auth=required",
            "ssl.enabled.protocols=TLSv1.2,TLSv1.3",
            f"ssl.cipher.suites={','.join(_CIPHERS)}",
            f"ssl.principal.mapping.rules={','.join(PRINCIPAL_RULES)}",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            f"super.users={super_users(role_generations(pki))}",
            "allow.everyone.if.no.acl.found=false",
        )
    )


async def answers_kafka(address: KafkaAddress, node: int | None = None) -> bool:
    """Return whether Kafka at `address` has a controller, and a broker that accepts records: that number, or any."""
    from aiokafka.errors import KafkaError

    from schemas.transport.kafka.admin import Admin

    try:
        async with asyncio.timeout(ANSWER_S), Admin(address, ANSWER_S) as admin:
            cluster = await admin.cluster()
    except (KafkaError, OSError, TimeoutError):
        return False
    return (bool(cluster.nodes) if node is None else node in cluster.nodes) and cluster.controller >= 0
