"""The limits of password guesses, also concurrent ones, without locking out other users."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

import pytest

from consumers.console.access import passwords
from consumers.console.access.guesses import FORGET_S, Attempt, TryLaterError
from consumers.console.access.passwords import MOST_WAITING, REMEMBERED_S, Passwords
from consumers.console.access.rights import Right, Roles
from consumers.console.access.users import User
from tests.clocks import Clock
from tests.waiting import PATIENCE_S, until

ANNA = User("anna", Roles.parse(Right.VIEWER), b"salt", b"digest")
ROBOT = User("robot", Roles.parse(Right.VIEWER), b"salt", b"digest")
RIGHT = "the right one"


async def stays_connected() -> None:
    """Wait for ever, as for a visitor who does not disconnect."""
    await asyncio.Event().wait()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return the list of the names and passwords that are hashed; each check takes 10 ms."""
    found: list[tuple[str, str]] = []

    def check(known: Mapping[str, User], name: str, password: str) -> User | None:
        found.append((name, password))
        time.sleep(0.01)
        return known.get(name) if password == RIGHT else None

    monkeypatch.setattr(passwords, "check_password", check)
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def checker(clock: Clock) -> Passwords:
    return Passwords(lambda: {"anna": ANNA, "robot": ROBOT}, clock)


async def outcome(checker: Passwords, attempt: Attempt, password: str, *, remember: bool = False) -> str:
    try:
        user = await checker.check(attempt, password, stays_connected, remember=remember)
    except TryLaterError:
        return "later"
    return user.name if user is not None else "wrong"


async def test_concurrent_guesses_are_limited_like_consecutive_ones(
    checker: Passwords, checked: list[tuple[str, str]]
) -> None:
    guesses = [RIGHT if number == 39 else f"guess {number}" for number in range(60)]
    found = await asyncio.gather(*(outcome(checker, Attempt("192.0.2.1", "anna"), guess) for guess in guesses))
    assert found.count("later") == 60 - len(checked)
    assert len(checked) <= MOST_WAITING
    assert "anna" not in found
    for _ in range(60):
        await outcome(checker, Attempt("192.0.2.1", "anna"), "another guess")
    assert len(checked) == 5


async def test_each_wrong_password_after_the_fifth_doubles_the_delay(
    checker: Passwords, checked: list[tuple[str, str]], clock: Clock
) -> None:
    waits = []
    for number in range(12):
        assert await outcome(checker, Attempt("192.0.2.1", "anna"), f"guess {number}") == "wrong"
        try:
            await checker.check(Attempt("192.0.2.1", "anna"), RIGHT, stays_connected)
        except TryLaterError as later:
            waits.append(later.after_s)
            clock.now_s += later.after_s
        else:
            waits.append(0)
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert len(checked) == 12 + 4


async def test_the_count_of_wrong_passwords_expires_and_correct_ones_are_not_counted(
    checker: Passwords, checked: list[tuple[str, str]], clock: Clock
) -> None:
    for _ in range(30):
        assert await outcome(checker, Attempt("192.0.2.1", "anna"), RIGHT) == "anna"
    for _ in range(5):
        await outcome(checker, Attempt("192.0.2.1", "anna"), "wrong")
    assert await outcome(checker, Attempt("192.0.2.1", "anna"), RIGHT) == "later"
    clock.now_s += FORGET_S + 1
    for _ in range(4):
        assert await outcome(checker, Attempt("192.0.2.1", "anna"), "wrong") == "wrong"
    assert await outcome(checker, Attempt("192.0.2.1", "anna"), RIGHT) == "anna"


async def test_guesses_do_not_lock_out_a_user_from_a_known_browser_or_address(
    checker: Passwords, checked: list[tuple[str, str]], clock: Clock
) -> None:
    known, browser = Attempt("192.0.2.2", "anna"), Attempt("192.0.2.1", "anna", "browser 1")
    assert await outcome(checker, known, RIGHT) == "anna"
    for number in range(40):
        for address in range(10, 50):
            await outcome(checker, Attempt(f"198.51.100.{address}", "anna"), f"guess {number}")
        await outcome(checker, Attempt("192.0.2.1", "anna"), f"guess {number}")
    assert await outcome(checker, Attempt("203.0.113.1", "anna"), RIGHT) == "later"
    assert await outcome(checker, Attempt("192.0.2.1", "anna"), RIGHT) == "later"
    assert await outcome(checker, known, RIGHT) == "anna"
    assert await outcome(checker, browser, RIGHT) == "anna"


async def test_guesses_are_delayed_by_name_and_by_address(checker: Passwords, checked: list[tuple[str, str]]) -> None:
    for number in range(60):
        await outcome(checker, Attempt(f"192.0.2.{number}", "anna"), "guess")
    assert len(checked) == 20
    for number in range(60):
        await outcome(checker, Attempt("198.51.100.1", f"name {number}"), "guess")
    assert len(checked) == 40


async def test_names_longer_than_any_user_has_count_by_their_beginning(
    checker: Passwords, checked: list[tuple[str, str]]
) -> None:
    for number in range(60):
        attempt = Attempt(f"192.0.2.{number}", 40_000 * "x" + str(number))
        assert len("".join(attempt.visitor)) < 100
        await outcome(checker, attempt, "guess")
    assert len(checked) == 20


async def test_disconnected_visitors_occupy_no_place_in_the_queue(
    checker: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, proceed = threading.Event(), threading.Event()

    def check(known: Mapping[str, User], name: str, password: str) -> User | None:
        begun.set()
        assert proceed.wait(PATIENCE_S)
        return known.get(name) if password == RIGHT else None

    monkeypatch.setattr(passwords, "check_password", check)
    left = asyncio.Event()

    async def disconnects() -> None:
        await left.wait()

    async def abandoned(number: int) -> str:
        try:
            await checker.check(Attempt(f"192.0.2.{number}", f"name {number}"), "guess", disconnects)
        except TryLaterError:
            return "later"
        return "checked"

    tasks = [asyncio.create_task(abandoned(number)) for number in range(60)]
    await until(begun.is_set)
    assert await outcome(checker, Attempt("203.0.113.1", "robot"), RIGHT) == "later"
    left.set()
    assert await asyncio.gather(*tasks) == ["later"] * 60
    honest = asyncio.create_task(outcome(checker, Attempt("203.0.113.1", "robot"), RIGHT))
    await asyncio.sleep(0)
    proceed.set()
    assert await asyncio.wait_for(honest, PATIENCE_S) == "robot"


async def test_a_remembered_password_is_hashed_once_a_minute_and_when_its_user_changes(
    clock: Clock, checked: list[tuple[str, str]]
) -> None:
    known = {"robot": ROBOT}
    checker = Passwords(lambda: known, clock)
    robot = Attempt("192.0.2.1", "robot")
    found = await asyncio.gather(*(outcome(checker, robot, RIGHT, remember=True) for _ in range(50)))
    assert (found, len(checked)) == (["robot"] * 50, 1)
    clock.now_s += REMEMBERED_S - 1
    assert (await outcome(checker, robot, RIGHT, remember=True), len(checked)) == ("robot", 1)
    clock.now_s += 1
    assert (await outcome(checker, robot, RIGHT, remember=True), len(checked)) == ("robot", 2)
    known["robot"] = User("robot", Roles.parse(Right.ADMIN), b"salt", b"digest")
    assert (await outcome(checker, robot, RIGHT, remember=True), len(checked)) == ("robot", 3)
    del known["robot"]
    assert await outcome(checker, robot, RIGHT, remember=True) == "wrong"


async def test_guesses_at_a_remembered_password_are_limited(checker: Passwords, checked: list[tuple[str, str]]) -> None:
    robot = Attempt("192.0.2.1", "robot")
    assert await outcome(checker, robot, RIGHT, remember=True) == "robot"
    for number in range(60):
        await outcome(checker, robot, f"guess {number}", remember=True)
    assert await outcome(checker, robot, RIGHT, remember=True) == "later"
    assert len(checked) == 6
