"""The window of acknowledgements: packet ids are released in the order of their arrival."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from producers.bridge.mqtt.acknowledgements import AckWindow, Ticket


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[list[int]]]:
    """Draw packet ids in arrival order, and their positions in batches that are settled together, in any order."""
    packet_ids = draw(st.lists(st.integers(1, 65535), max_size=40))
    places = draw(st.permutations(range(len(packet_ids))))
    batches, at = [], 0
    while at < len(places):
        size = draw(st.integers(1, len(places) - at))
        batches.append(places[at : at + size])
        at += size
    return packet_ids, batches


@settings(max_examples=200, deadline=None)
@given(histories())
def test_packet_ids_are_released_once_in_arrival_order_after_their_own_records(
    history: tuple[list[int], list[list[int]]],
) -> None:
    packet_ids, batches = history
    window = AckWindow()
    window.open()
    tickets = [window.receive(packet_id) for packet_id in packet_ids]
    released: list[int] = []
    settled: set[int] = set()
    for batch in batches:
        released += window.settle(tickets[place] for place in batch)
        settled.update(batch)
        prefix = next((place for place in range(len(packet_ids)) if place not in settled), len(packet_ids))
        assert released == packet_ids[:prefix]
        assert len(window) == len(packet_ids) - prefix
    assert released == packet_ids


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.randoms(use_true_random=False))
def test_tickets_of_an_older_connection_release_nothing_on_a_newer_one(before: int, after: int, random: object) -> None:
    window = AckWindow()
    window.open()
    old = [window.receive(number + 1) for number in range(before)]
    window.open()
    new = [window.receive(number + 1) for number in range(after)]
    assert window.settle(old) == []
    mixed: list[Ticket] = [*old, *new]
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert window.settle(mixed) == list(range(1, after + 1))
    assert len(window) == 0


def test_messages_received_between_settlements_keep_their_order() -> None:
    window = AckWindow()
    window.open()
    first, second = window.receive(7), window.receive(8)
    assert window.settle([second]) == []
    third = window.receive(9)
    assert window.settle([third]) == []
    assert window.settle([first]) == [7, 8, 9]
