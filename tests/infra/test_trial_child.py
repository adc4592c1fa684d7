"""The child process of a trial: the messages that it sends, its limits, and its end."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.bundling import create, trial
from infra.bundling.bundle_request import BundleRequest, Summary
from infra.bundling.trial import Limits
from schemas.errors import BundleError, ConfigError, UserError

LIMITS = Limits(seconds=10, memory_gib=2)
SUMMARY = Summary("net", "ONNX", "onnx", 3, 8, 8, 2, None, None, None, (), ())


class SentMessages(list[object]):
    """The child's end of the pipe."""

    def send(self, message: object) -> None:
        self.append(message)


@pytest.fixture
def limits_set(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, int]]:
    """Record the limits that the child sets, by resource, in place of setting them in this process."""
    found: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "setrlimit", found.__setitem__)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return found


def run_child(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[object]:
    """Run the child with a trial that raises `error`, if there is one. Return the messages that it sends."""
    sent = SentMessages()

    def fill(request: BundleRequest, folder: Path, out: Path, print_line: Any, skipped: Any) -> SimpleNamespace:
        print_line("reading")
        skipped("cat.png", "too small")
        if error is not None:
            raise error
        return SimpleNamespace(summary=SUMMARY)

    monkeypatch.setattr(create, "fill", fill)
    trial._run(LIMITS, BundleRequest("onnx", "own.onnx"), Path("there"), Path("out"), cast(Any, sent))
    return sent


@pytest.mark.parametrize(
    ("error", "last"),
    [
        (None, None),
        (ConfigError("--size is missing"), "--size is missing"),
        (MemoryError(), "own.onnx: expected a trial within 2 GiB, got MemoryError. "),
        (RuntimeError("can't allocate memory: 4 GiB\nat x"), "own.onnx: expected a trial within 2 GiB, got can't all"),
        (
            RuntimeError("no kernel\nat x"),
            "own.onnx: expected a network that can be tried, got RuntimeError: no kernel.",
        ),
        (OSError("no room"), "own.onnx: expected a network that can be tried, got OSError: no room. "),
    ],
    ids=["done", "rejected", "no memory", "torch without memory", "another error", "an error of the system"],
)
def test_the_child_sends_its_lines_and_then_its_result_or_a_user_error(
    monkeypatch: pytest.MonkeyPatch, limits_set: dict[int, tuple[int, int]], error: Exception | None, last: str | None
) -> None:
    *before, end = run_child(monkeypatch, error)
    assert before == [None, "reading", ("cat.png", "too small")]
    if last is None:
        assert end is SUMMARY
    else:
        assert isinstance(end, UserError)
        assert str(end).startswith(last)
        assert "\n" not in str(end)


def test_the_child_limits_memory_time_and_core_files_and_keeps_a_lower_hard_limit(
    monkeypatch: pytest.MonkeyPatch, limits_set: dict[int, tuple[int, int]]
) -> None:
    hard = {resource.RLIMIT_AS: resource.RLIM_INFINITY, resource.RLIMIT_CPU: 7, resource.RLIMIT_CORE: 100}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (0, hard[which]))
    trial._limit(LIMITS)
    soft, hard_limit = limits_set[resource.RLIMIT_AS]
    assert soft == hard_limit > 2 * 2**30
    assert limits_set[resource.RLIMIT_CPU] == (7, 7)
    assert limits_set[resource.RLIMIT_CORE] == (0, 0)


def test_a_child_that_ends_without_a_result_is_one_error_line() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    for message in (None, "reading", ("cat.png", "too small")):
        sender.send(message)
    sender.close()
    child = cast(Any, SimpleNamespace(join=lambda _: None, exitcode=-signal.SIGKILL))
    lines: list[str] = []
    skipped: list[tuple[str, str]] = []
    with receiver, pytest.raises(BundleError, match=r"^own\.onnx: .*got one killed by SIGKILL"):
        trial._result(child, receiver, LIMITS, "own.onnx", lines.append, lambda *each: skipped.append(each))
    assert (lines, skipped) == (["reading"], [("cat.png", "too small")])
