"""Dead letters: their origin, their reason, and their limits."""

from __future__ import annotations

from schemas.limits import DEAD_LETTER_PAYLOAD_BYTES
from schemas.messages.dead_letters import ERROR_CHARACTERS, dead_letter
from schemas.pointillist_pb2 import DeadLetter


def test_a_dead_letter_names_the_origin_of_its_payload_and_the_reason() -> None:
    letter = dead_letter("bridge", "bad_tag", "the tag is wrong", ("a/topic", 3, -1), "hall/door", b"payload", 77)
    assert letter == DeadLetter(
        origin_topic="a/topic",
        origin_partition=3,
        origin_offset=-1,
        stage="bridge",
        reason="bad_tag",
        error="the tag is wrong",
        camera_id="hall/door",
        payload=b"payload",
        payload_bytes=7,
        at_ms=77,
    )


def test_error_and_payload_are_cut_and_the_full_length_is_kept() -> None:
    payload = bytes(DEAD_LETTER_PAYLOAD_BYTES + 9)
    letter = dead_letter("validate", "malformed", "x" * 2000, ("frames", 1, 2), "", payload, 1)
    assert (len(letter.error), letter.payload) == (ERROR_CHARACTERS, payload[:-9])
    assert letter.payload_bytes == len(payload)
    letter = dead_letter("validate", "malformed", "", ("frames", 1, 2), "", payload, 1, payload_bytes=5)
    assert letter.payload_bytes == 5


def test_an_error_that_quotes_a_text_without_unicode_becomes_a_letter() -> None:
    letter = dead_letter("classify", "failed", "ValueError: \udce9", ("frames", 0, 7), "lab/door", b"", 5)
    assert letter.error == "ValueError: ?"
