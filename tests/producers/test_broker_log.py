"""Rejected clients in mosquitto's log, from lines as mosquitto 2.0.11 writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.bridge.mqtt.broker_log import REFUSALS, refused

AT = "2026-11-21T22:17:18: "


@pytest.mark.parametrize(
    ("kind", "line", "what", "who"),
    [
        ("E", "OpenSSL Error[0]: error:0A0000C7:SSL routines::peer did not return a certificate", "login", ""),
        ("E", "OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed", "login", ""),
        ("N", "Client connection from 10.0.0.9 failed: error:0A00010B:SSL routines::wrong version number.", "login",
         "10.0.0.9"),
        ("N", "Client site/a disconnected, not authorised.", "login", "site/a"),
        ("N", "Bad socket read/write on client site/a: Unknown error.", "publish", "site/a"),
        ("E", "Client site/a already connected, closing old connection.", "takeover", "site/a"),
        ("N", "Client site/d disconnected due to oversize packet.", "oversize", "site/d"),
        ("N", "Client site/d disconnected due to protocol error.", "protocol", "site/d"),
        ("N", "Client site/d [10.0.0.9:4711] disconnected due to malformed packet.", "protocol", "site/d"),
        ("N", "Client <unknown> disconnected: Protocol error.", "unnamed", ""),
        ("N", "Client <unknown> has exceeded timeout, disconnecting.", "unnamed", ""),
        ("N", "Client connection from 10.0.0.9 failed: error:0A000126:SSL routines::unexpected eof while reading.",
         "unnamed", "10.0.0.9"),
        ("M/subscribe", "site/a 1 $share/x/#", "subscription", "site/a"),
        ("M/subscribe", "site/a 0 pointillist/v1/site/b/confirm", "subscription", "site/a"),
        ("M/subscribe", "site/a 2 pointillist/v1/site/ab/confirm", "subscription", "site/a"),
    ],
)  # fmt: skip
def test_a_rejection_is_classified_with_the_client_that_it_concerns(kind: str, line: str, what: str, who: str) -> None:
    found = refused(f"$SYS/broker/log/{kind}".encode(), f"{AT}{line}".encode())
    assert found is not None
    assert (found.what, found.who) == (what, who)
    # The detail is the rest of the line without the name; some lines have none.
    assert found.detail in line
    assert who == "" or not found.detail.startswith(who)
    assert bool(found.detail) == (what in {"subscription", "unnamed"} or ":SSL routines:" in line)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("N", "New connection from 127.0.0.1:37676 on port 12868."),
        ("N", "New client connected from 127.0.0.1:37676 as health (p5, c1, k5, u'health')."),
        ("N", "Client health disconnected."),
        ("N", "Client site/c closed its connection."),
        ("N", "Client site/c has exceeded timeout, disconnecting."),
        ("E", "OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading"),
        ("M/subscribe", "site/a 1 pointillist/v1/site/a/confirm"),
        ("M/subscribe", "bridge 1 $share/secret/pointillist/v1/+/+/frame"),
        ("M/subscribe", "pl0123456789abcdef01 0 pointillist/v1/site/a/confirm"),
    ],
)
def test_a_usual_line_is_no_rejection(kind: str, line: str) -> None:
    assert refused(f"$SYS/broker/log/{kind}".encode(), f"{AT}{line}".encode()) is None


@given(st.sampled_from([b"N", b"E", b"M/subscribe", b""]), st.binary(max_size=300))
def test_any_line_is_parsed_without_an_exception(kind: bytes, line: bytes) -> None:
    found = refused(b"$SYS/broker/log/" + kind, line)
    assert found is None or found.what in REFUSALS
