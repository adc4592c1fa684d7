"""The ends of the certificates that a role presents, or is presented by a server, as metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from schemas.metrics import CERTIFICATE_EXPIRATION
from schemas.runtime.followed_file import FileVersion, file_version
from schemas.transport.access import KafkaAccess, MqttAccess, Tls

Certificates = Mapping[str, Collection[Path] | Callable[[], float]]
"""Certificate files by purpose, or functions that return an end in Unix seconds.

The collections may change while the role runs.
"""


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
    for purpose, found in certificates.items():
        gauge.labels(purpose=purpose).set_function(found if callable(found) else _EarliestEnd(found))


def end_at_start(file: Path) -> Callable[[], float]:
    """Return a function that returns the present end of a certificate, for a server that reads its file only once."""
    end = _EarliestEnd([file])()
    return lambda: end


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
