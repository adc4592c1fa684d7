"""The spans of sampled frames, made from the stamps of each role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from schemas.identity import CameraId, Identity
from schemas.runtime import trace
from schemas.runtime.spans import (
    CAMERA_FRAMES_PER_S,
    FRAMES_PER_S,
    OPEN_FRAMES,
    PATIENCE_S,
    Context,
    FrameSpans,
    Span,
    in_share,
    parsed,
    root,
)
from tests.clocks import Clock

FRAME = Identity(CameraId("hall/door"), 0xAB, 7)
NAME = str(FRAME)
SENT = root(NAME, sampled=True)


@pytest.fixture
def exported() -> list[Span]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock(100.0)


@pytest.fixture
def spans(exported: list[Span], clock: Clock) -> FrameSpans:
    return FrameSpans(exported.extend, share=1.0, clock=clock)


@pytest.fixture
def traced(exported: list[Span], spans: FrameSpans, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Span]]:
    monkeypatch.setattr(trace, "_spans", spans)
    yield exported
    trace.end_spans()


def stamped(spans: FrameSpans, *stamps: str, name: str = NAME) -> None:
    for at_ns, stage in enumerate(stamps, 1):
        spans.stamp(stage, [name], at_ns)


def test_a_header_can_be_parsed_again() -> None:
    for context in (SENT, root(NAME)):
        assert parsed(context.header()) == context
    assert SENT.header() == f"00-{SENT.trace_id}-{SENT.span_id}-01".encode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00-1-2-01",
        SENT.header() + b" ",
        SENT.header().upper(),
        SENT.header()[:-2] + b"zz",
        b"01" + SENT.header()[2:],
        b"\xff" * 55,
        SENT.header() * 1000,
    ],
)
def test_a_malformed_header_is_ignored(header: bytes, traced: list[Span]) -> None:
    assert parsed(header) is None
    assert trace.follow("processor", FRAME, header) is None
    trace.stamp("fetched", FRAME)
    trace.stamp("delivered", FRAME)
    assert traced == []


def test_about_the_share_of_frames_is_sampled_and_a_larger_share_includes_a_smaller_one() -> None:
    frames = [root(f"hall/door/00000000000000ab/{seq}") for seq in range(20_000)]
    some, more = ([frame for frame in frames if in_share(frame, share)] for share in (0.01, 0.1))
    assert 120 < len(some) < 280
    assert 1_800 < len(more) < 2_200
    assert set(some) < set(more)
    assert not any(in_share(frame, 0.0) for frame in frames)
    assert all(in_share(frame, 1.0) for frame in frames)


def test_a_camera_without_a_share_traces_nothing(exported: list[Span]) -> None:
    spans = FrameSpans(exported.extend)
    assert not spans.sample(NAME)
    stamped(spans, "captured", "confirmed")
    assert exported == []


def test_each_role_makes_its_span_with_its_steps(spans: FrameSpans, exported: list[Span]) -> None:
    assert spans.sample(NAME)
    stamped(spans, "captured", "taken", "sealed", "spooled", "published", "confirmed")
    whole, *steps = exported
    assert whole == ("camera", SENT.trace_id, SENT.span_id, "", 1, 6, NAME, True)
    assert [(step.name, step.began_ns, step.ended_ns) for step in steps] == [
        ("capture", 1, 2),
        ("seal", 2, 3),
        ("spool", 3, 4),
        ("wait", 4, 5),
        ("publish", 5, 6),
    ]
    assert {(step.trace_id, step.parent_id) for step in steps} == {(SENT.trace_id, SENT.span_id)}
    assert len({span.span_id for span in exported}) == 6
    assert len(spans) == 0


def test_the_spans_of_all_roles_form_one_trace_in_the_frames_order(spans: FrameSpans, exported: list[Span]) -> None:
    context: Context | None = SENT
    for role, first, last in (
        ("bridge", "received", "stored"),
        ("processor", "fetched", "delivered"),
        ("recorder", "gathered", "committed"),
    ):
        assert context is not None
        before, context = context, spans.follow(role, NAME, context)  # type: ignore[arg-type]  # the name of a role
        stamped(spans, first, last)
        own = exported[-1]
        assert context is not None
        assert (own.name, own.trace_id, own.span_id, own.parent_id) == (
            role,
            SENT.trace_id,
            context.span_id,
            before.span_id,
        )


def test_a_frame_without_strip_has_no_step_for_it(spans: FrameSpans, exported: list[Span]) -> None:
    spans.follow("processor", NAME, SENT)
    stamped(spans, "fetched", "device", "classified", "answered", "delivered")
    assert [span.name for span in exported] == ["processor", "wait", "classify", "publish"]


def test_stamps_of_other_frames_and_roles_do_not_belong_to_a_span(spans: FrameSpans, exported: list[Span]) -> None:
    spans.follow("bridge", NAME, SENT)
    stamped(spans, "received", "sent", "stored", name="hall/door/00000000000000ab/8")
    stamped(spans, "fetched", "delivered")
    assert exported == []
    assert len(spans) == 1


def test_a_context_of_another_trace_is_rejected(spans: FrameSpans) -> None:
    assert spans.follow("processor", NAME, root("hall/gate/00000000000000ab/7", sampled=True)) is None
    assert len(spans) == 0


def test_an_impossible_frame_name_is_rejected(spans: FrameSpans) -> None:
    name = "x" * 200
    assert spans.follow("recorder", name, root(name, sampled=True)) is None


def test_one_camera_cannot_use_up_the_shared_rate(spans: FrameSpans, clock: Clock) -> None:
    def followed(camera: str, frames: int) -> int:
        names = [f"{camera}/00000000000000ab/{seq}" for seq in range(frames)]
        places = [spans.follow("bridge", name, root(name, sampled=True)) for name in names]
        assert all(context is not None for context in places)  # beyond the limit the context only loses its flag
        return sum(context is not None and context.sampled for context in places)

    assert followed("hall/hostile", 1_000) == CAMERA_FRAMES_PER_S
    assert sum(followed(f"hall/door-{number}", 5) for number in range(40)) == FRAMES_PER_S - CAMERA_FRAMES_PER_S
    clock.now_s += 1
    assert followed("hall/hostile", 1_000) == CAMERA_FRAMES_PER_S


def test_a_rejected_frame_is_no_longer_followed(spans: FrameSpans, traced: list[Span]) -> None:
    assert trace.follow("bridge", FRAME, SENT.header()) is not None
    assert trace.on()
    trace.leave("bridge", FRAME)
    assert not trace.on()
    spans.close()
    assert traced == []


def test_beyond_the_rate_the_next_role_gets_the_header_without_the_flag(traced: list[Span]) -> None:
    names = [f"hall/door/00000000000000ab/{seq}" for seq in range(4 * CAMERA_FRAMES_PER_S)]
    headers = [trace.follow("bridge", name, root(name, sampled=True).header()) for name in names]
    last = headers[-1]
    assert last == root(names[-1]).header()
    assert trace.follow("processor", names[-1], last) == last


def test_a_process_follows_a_limited_number_of_frames_at_once(
    spans: FrameSpans, exported: list[Span], clock: Clock
) -> None:
    for number in range(OPEN_FRAMES + 3):
        clock.now_s += 0.2
        name = f"hall/door/00000000000000ab/{number}"
        assert spans.sample(name)
        stamped(spans, "captured", "taken", name=name)
    assert len(spans) == OPEN_FRAMES
    assert [span.frame[-2:] for span in exported if span.name == "camera"] == ["/0", "/1", "/2"]
    assert not any(span.complete for span in exported if span.name == "camera")


def test_a_frame_without_an_end_is_closed_after_a_time(spans: FrameSpans, exported: list[Span], clock: Clock) -> None:
    spans.sample(NAME)
    stamped(spans, "captured", "taken", "sealed")
    clock.now_s += PATIENCE_S - 1
    spans.sample("hall/door/00000000000000ab/8")
    assert exported == []
    clock.now_s += 1
    spans.sample("hall/door/00000000000000ab/9")
    assert [(span.name, span.complete, span.ended_ns) for span in exported] == [
        ("camera", False, 3),
        ("capture", True, 2),
        ("seal", True, 3),
    ]


def test_a_redelivered_frame_is_another_span_of_its_trace(spans: FrameSpans, exported: list[Span]) -> None:
    first = spans.follow("bridge", NAME, SENT)
    stamped(spans, "received", "sent")
    second = spans.follow("bridge", NAME, SENT)
    assert first is not None
    assert second is not None
    assert [(span.name, span.span_id, span.complete) for span in exported][:1] == [("bridge", first.span_id, False)]
    stamped(spans, "received", "sent", "stored")
    assert (exported[2].name, exported[2].span_id, exported[2].complete) == ("bridge", second.span_id, True)


def test_open_frames_are_exported_at_the_end_of_a_process(traced: list[Span]) -> None:
    assert trace.sample(FRAME)
    assert trace.on()
    trace.stamp("captured", FRAME, at_ns=5)
    trace.end_spans()
    assert [(span.name, span.complete) for span in traced] == [("camera", False)]
    assert not trace.on()
    assert not trace.sample(FRAME)


def test_nothing_is_stamped_while_no_sampled_frame_is_open(traced: list[Span]) -> None:
    assert not trace.on()
    assert trace.follow("bridge", FRAME, SENT.header()) != SENT.header()
    assert trace.on()
    trace.stamp("received", FRAME)
    trace.stamp("stored", FRAME)
    assert not trace.on()
    assert [span.name for span in traced] == ["bridge"]


def test_a_role_without_spans_forwards_the_header() -> None:
    assert trace.follow("processor", FRAME, SENT.header()) == SENT.header()
    assert trace.follow("processor", FRAME, b"00-1-2-01") == b"00-1-2-01"


def test_a_capture_time_ahead_of_the_clock_makes_no_negative_step(spans: FrameSpans, exported: Sequence[Span]) -> None:
    spans.sample(NAME)
    for stage, at_ns in (("captured", 50), ("taken", 10), ("sealed", 20), ("confirmed", 30)):
        spans.stamp(stage, [NAME], at_ns)
    assert all(span.began_ns <= span.ended_ns for span in exported)
