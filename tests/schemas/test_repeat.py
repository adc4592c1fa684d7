"""Repeated work: a failure is logged and does not end the repetition; a cancellation does."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from schemas.errors import error_text, typed_text
from schemas.runtime.repeat import attempt, repeat
from tests.waiting import running


async def test_failed_work_is_logged_and_repeated_until_cancellation() -> None:
    runs, enough = 0, asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()
        if runs != 2:
            raise OSError("away")

    with capture_logs() as logs:
        async with running(repeat(work, 0.001, "store_not_read")), asyncio.timeout(30):
            await enough.wait()
    failed = {"event": "store_not_read", "error": "away", "log_level": "warning"}
    assert logs[:2] == [failed, failed]


async def test_an_attempt_returns_the_result_or_logs_the_failure_with_its_values() -> None:
    async def fail() -> int:
        raise TimeoutError

    async def answers() -> int:
        return 5

    with capture_logs() as logs:
        assert await attempt(answers, "store_not_read") == 5
        assert await attempt(fail, "store_not_read", kind="clips") is None
    assert logs == [{"event": "store_not_read", "kind": "clips", "error": "TimeoutError", "log_level": "warning"}]


def test_a_long_error_message_is_cut() -> None:
    assert error_text(ValueError("x" * 300)) == "x" * 200
    assert typed_text(ValueError("x" * 300)) == "ValueError: " + "x" * 188


@pytest.mark.parametrize(
    ("error", "text"),
    [(OSError("away\nsince noon"), "OSError: away"), (OSError("\n away "), "OSError: away"), (OSError(), "OSError")],
)
def test_the_text_of_an_error_has_its_type_and_the_first_line_of_its_message(error: OSError, text: str) -> None:
    assert typed_text(error) == text
