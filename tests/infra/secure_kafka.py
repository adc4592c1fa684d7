"""A Kafka with TLS and rights as `pointillist up` runs it, with a second listener for passwords."""

from __future__ import annotations

from typing import Final

from infra.local.kafka import Kafka

PASSWORD: Final = "correct horse battery staple"
USERS: Final = ("recorder", "admin")


class KafkaWithPasswords(Kafka):
    """A Kafka with a second listener on which `USERS` log in by SCRAM-SHA-512 under TLS."""

    port_names = (*Kafka.port_names, "kafka-login")

    @property
    def login(self) -> str:
        """The address of the listener for passwords."""
        return f"{self.host}:{self._ports['kafka-login']}"

    def _command(self) -> list[str]:
        command = super()._command()
        file = self.folder / "server.properties"
        text = file.read_text()
        for name in ("listeners=", "advertised.listeners="):
            text = text.replace(f"\n{name}BROKER", f"\n{name}LOGIN://{self.login},BROKER")
        text = text.replace("protocol.map=", "protocol.map=LOGIN:SASL_SSL,")
        file.write_text(
            f"{text}\nsasl.enabled.mechanisms=SCRAM-SHA-512\nlistener.name.login.ssl.client.auth=none\n"
            "listener.name.login.scram-sha-512.sasl.jaas.config="
            "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
        )
        return command

    def _format(self, jvm: list[str], *options: str) -> None:
        added = [word for user in USERS for word in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={PASSWORD}]")]
        super()._format(jvm, *options, *added)
