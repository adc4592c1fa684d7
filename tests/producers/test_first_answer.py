"""The likely cause of missing confirmations, as a camera logs it."""

from __future__ import annotations

import pytest

from producers.publisher.first_answer import silence


@pytest.mark.parametrize(
    ("connected", "connections", "no_subscribers", "words"),
    [
        (True, 9, False, "the broker has closed 8 connections: the certificate or login does not belong to a/door"),
        (False, 1, False, "no connection to the broker"),
        (False, 1, True, "no connection to the broker: it refuses this camera"),
        (True, 1, True, "the broker has no subscriber for frames: no bridge is connected to it"),
        (True, 1, False, "the broker accepts frames, and none is confirmed: the key does not belong to a/door"),
    ],
)
def test_missing_confirmations_are_explained_by_their_likely_cause(
    connected: bool, connections: int, no_subscribers: bool, words: str
) -> None:
    assert silence("a/door", connected, connections, no_subscribers).startswith(words)
