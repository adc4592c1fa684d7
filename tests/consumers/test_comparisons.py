"""Comparisons of a rollout in the database, with texts from a candidate's own code."""

from __future__ import annotations

from consumers.database.comparisons import differences, save_comparisons
from schemas.pointillist_pb2 import SHADOW, Answer, Comparison
from tests.consumers.recorder_rig import CAMERA, Rig


def test_texts_with_zero_characters_are_stored_without_them(rig: Rig) -> None:
    live, candidate = Answer(class_name="st\0p"), Answer(class_name="\0", error="expected a header, got \0\0")
    found = Comparison(boot_id=1, seq=2, begun_ms=3, digest="d", slot=SHADOW, live=live, candidate=candidate)
    with rig.engine.begin() as connection:
        save_comparisons(connection, [(CAMERA, found)], 5)
        (row,) = differences(connection, 3)
    replaced = "\N{REPLACEMENT CHARACTER}"
    assert (row["live_class"], row["candidate_class"]) == (f"st{replaced}p", replaced)
    assert row["error"] == f"expected a header, got {2 * replaced}"
