"""The likely cause of a silence, as a camera's log names it."""

from __future__ import annotations

import pytest

from producers.publisher.first_answer import silence


@pytest.mark.parametrize(
    ("connected", "connections", "no_subscribers", "words"),
    [
        (True, 9, False, "the broker has ended 8 connections: the certificate or login is not that of a/door"),
        (False, 1, False, "the broker holds no connection with this camera"),
        (False, 1, True, "the broker holds no connection with this camera: it does not let it in"),
        (True, 1, True, "the broker has nobody to give frames to: no bridge runs there"),
        (True, 1, False, "frames are taken and none is confirmed: the key is not that of a/door"),
    ],
)
def test_a_silence_has_its_likely_cause(connected: bool, connections: int, no_subscribers: bool, words: str) -> None:
    assert silence("a/door", connected, connections, no_subscribers).startswith(words)
