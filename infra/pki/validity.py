"""The validity of certificates in days, without the libraries that make them."""

from __future__ import annotations

from typing import Final

CERTIFICATE_DAYS: Final = 825
ROLE_DAYS: Final = 14.0
"""Validity of a client's certificate in days: Kafka reads no revocation list, so a copy must expire by itself."""
RENEWED_DAYS: Final = 30.0
"""Days before its end at which a certificate is renewed; if half of its life is later, it is renewed then."""
