"""The ends of the certificates that a role presents, as metrics."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from schemas.metrics import CERTIFICATE_EXPIRATION
from schemas.runtime.file_version import FileVersion, file_version
from schemas.transport.access import KafkaAccess, MqttAccess, Tls

Certificates = Mapping[str, Collection[Path]]
"""Certificate files by purpose: mqtt, kafka, admin. The collections may change while the role runs."""


def tls_of(settings: object) -> dict[str, Tls]:
    """Return the TLS files for MQTT and Kafka in the resolved settings of a role; without TLS, none."""
    links = {broker: getattr(settings, broker, None) for broker in ("mqtt", "kafka")}
    found = {broker: link.tls for broker, link in links.items() if isinstance(link, KafkaAccess | MqttAccess)}
    return {broker: tls for broker, tls in found.items() if tls is not None}


def certificates_of(settings: object) -> dict[str, list[Path]]:
    """Return the certificates for MQTT and Kafka that the resolved settings of a role name."""
    return {broker: [tls.certificate] for broker, tls in tls_of(settings).items() if tls.certificate is not None}


def export_ends(registry: CollectorRegistry, certificates: Certificates) -> None:
    """Export the earliest end of the certificates of each purpose. A scrape reads the files that have changed."""
    gauge = CERTIFICATE_EXPIRATION.on(registry)
    for purpose, files in certificates.items():
        gauge.labels(purpose=purpose).set_function(_EarliestEnd(files))


class _EarliestEnd:
    """The earliest end of some certificates in Unix seconds; NaN if none was ever readable.

    A file that can no longer be read counts with its former end.
    """

    def __init__(self, files: Collection[Path]) -> None:
        self._files = files
        self._known: dict[Path, tuple[FileVersion, float]] = {}

    def __call__(self) -> float:
        self._known = known = {file: self._read(file) for file in tuple(self._files)}
        return min((end for _, end in known.values() if not math.isnan(end)), default=math.nan)

    def _read(self, file: Path) -> tuple[FileVersion, float]:
        from cryptography import x509  # not for roles without a certificate

        former, version = self._known.get(file, (None, math.nan)), file_version(file)
        if version in (None, former[0]):
            return former
        try:
            found = x509.load_pem_x509_certificate(file.read_bytes())
        except (OSError, ValueError):
            return former
        return version, found.not_valid_after_utc.timestamp()
