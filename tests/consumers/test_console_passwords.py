"""Password guesses: limited also where many come at once, and nobody else is locked out by them."""

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
from tests.waiting import PATIENCE_S, until

ANNA = User("anna", Roles.parse(Right.VIEWER), b"salt", b"digest")
ROBOT = User("robot", Roles.parse(Right.VIEWER), b"salt", b"digest")
RIGHT = "the right one"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def stays() -> None:
    """A visitor who waits for the answer."""
    await asyncio.Event().wait()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The names and passwords that were hashed; every check costs 10 ms."""
    found: list[tuple[str, str]] = []

    def check(known: Mapping[str, User], name: str, password: str) -> User | None:
        found.append((name, password))
        time.sleep(0.01)
        return known.get(name) if password == RIGHT else None

    monkeypatch.setattr(passwords, "check_password", check)
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(clock: Clock) -> Passwords:
    return Passwords(lambda: {"anna": ANNA, "robot": ROBOT}, clock)


async def outcome(made: Passwords, attempt: Attempt, password: str, *, remember: bool = False) -> str:
    try:
        user = await made.check(attempt, password, stays, remember=remember)
    except TryLaterError:
        return "later"
    return user.name if user is not None else "wrong"


async def test_of_sixty_guesses_at_once_no_more_are_checked_than_one_after_the_other(
    made: Passwords, checked: list[tuple[str, str]]
) -> None:
    guesses = [RIGHT if number == 39 else f"guess {number}" for number in range(60)]
    found = await asyncio.gather(*(outcome(made, Attempt("192.0.2.1", "anna"), guess) for guess in guesses))
    assert found.count("later") == 60 - len(checked)
    assert len(checked) <= MOST_WAITING
    assert "anna" not in found
    for _ in range(60):
        await outcome(made, Attempt("192.0.2.1", "anna"), "another guess")
    assert len(checked) == 5


async def test_each_wrong_password_after_the_first_few_delays_the_next_one_longer(
    made: Passwords, checked: list[tuple[str, str]], clock: Clock
) -> None:
    waits = []
    for number in range(12):
        assert await outcome(made, Attempt("192.0.2.1", "anna"), f"guess {number}") == "wrong"
        try:
            await made.check(Attempt("192.0.2.1", "anna"), RIGHT, stays)
        except TryLaterError as later:
            waits.append(later.after_s)
            clock.now_s += later.after_s
        else:
            waits.append(0)
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert len(checked) == 12 + 4


async def test_a_count_is_forgotten_and_a_right_password_is_no_guess(
    made: Passwords, checked: list[tuple[str, str]], clock: Clock
) -> None:
    for _ in range(30):
        assert await outcome(made, Attempt("192.0.2.1", "anna"), RIGHT) == "anna"
    for _ in range(5):
        await outcome(made, Attempt("192.0.2.1", "anna"), "wrong")
    assert await outcome(made, Attempt("192.0.2.1", "anna"), RIGHT) == "later"
    clock.now_s += FORGET_S + 1
    for _ in range(4):
        assert await outcome(made, Attempt("192.0.2.1", "anna"), "wrong") == "wrong"
    assert await outcome(made, Attempt("192.0.2.1", "anna"), RIGHT) == "anna"


async def test_who_has_logged_in_from_a_browser_or_an_address_is_not_locked_out_by_guesses_at_the_name(
    made: Passwords, checked: list[tuple[str, str]], clock: Clock
) -> None:
    known, browser = Attempt("192.0.2.2", "anna"), Attempt("192.0.2.1", "anna", "browser 1")
    assert await outcome(made, known, RIGHT) == "anna"
    for number in range(40):
        for address in range(10, 50):
            await outcome(made, Attempt(f"198.51.100.{address}", "anna"), f"guess {number}")
        await outcome(made, Attempt("192.0.2.1", "anna"), f"guess {number}")
    assert await outcome(made, Attempt("203.0.113.1", "anna"), RIGHT) == "later"
    assert await outcome(made, Attempt("192.0.2.1", "anna"), RIGHT) == "later"
    assert await outcome(made, known, RIGHT) == "anna"
    assert await outcome(made, browser, RIGHT) == "anna"


async def test_one_name_guessed_from_many_addresses_and_many_names_from_one_are_delayed(
    made: Passwords, checked: list[tuple[str, str]]
) -> None:
    for number in range(60):
        await outcome(made, Attempt(f"192.0.2.{number}", "anna"), "guess")
    assert len(checked) == 20
    for number in range(60):
        await outcome(made, Attempt("198.51.100.1", f"name {number}"), "guess")
    assert len(checked) == 40


async def test_visitors_that_leave_hold_no_place_in_the_queue(made: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def check(known: Mapping[str, User], name: str, password: str) -> User | None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return known.get(name) if password == RIGHT else None

    monkeypatch.setattr(passwords, "check_password", check)
    left = asyncio.Event()

    async def leaves() -> None:
        await left.wait()

    async def abandoned(number: int) -> str:
        try:
            await made.check(Attempt(f"192.0.2.{number}", f"name {number}"), "guess", leaves)
        except TryLaterError:
            return "later"
        return "checked"

    tasks = [asyncio.create_task(abandoned(number)) for number in range(60)]
    await until(begun.is_set)
    assert await outcome(made, Attempt("203.0.113.1", "robot"), RIGHT) == "later"
    left.set()
    assert await asyncio.gather(*tasks) == ["later"] * 60
    honest = asyncio.create_task(outcome(made, Attempt("203.0.113.1", "robot"), RIGHT))
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.wait_for(honest, PATIENCE_S) == "robot"


async def test_a_programs_password_is_hashed_once_a_minute_and_again_when_the_user_changes(
    clock: Clock, checked: list[tuple[str, str]]
) -> None:
    known = {"robot": ROBOT}
    made = Passwords(lambda: known, clock)
    robot = Attempt("192.0.2.1", "robot")
    found = await asyncio.gather(*(outcome(made, robot, RIGHT, remember=True) for _ in range(50)))
    assert (found, len(checked)) == (["robot"] * 50, 1)
    clock.now_s += REMEMBERED_S - 1
    assert (await outcome(made, robot, RIGHT, remember=True), len(checked)) == ("robot", 1)
    clock.now_s += 1
    assert (await outcome(made, robot, RIGHT, remember=True), len(checked)) == ("robot", 2)
    known["robot"] = User("robot", Roles.parse(Right.ADMIN), b"salt", b"digest")
    assert (await outcome(made, robot, RIGHT, remember=True), len(checked)) == ("robot", 3)
    del known["robot"]
    assert await outcome(made, robot, RIGHT, remember=True) == "wrong"


async def test_a_remembered_password_answers_no_guesses_beyond_the_limit(
    made: Passwords, checked: list[tuple[str, str]]
) -> None:
    robot = Attempt("192.0.2.1", "robot")
    assert await outcome(made, robot, RIGHT, remember=True) == "robot"
    for number in range(60):
        await outcome(made, robot, f"guess {number}", remember=True)
    assert await outcome(made, robot, RIGHT, remember=True) == "later"
    assert len(checked) == 6
