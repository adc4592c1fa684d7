"""The lines that a change of code touches, and whether the golden batch executes them.

Definitions are compared between two checkouts as `provenance` reaches them. A definition is unchanged if its place has
the same content as before, or if it is new there and its content left another place. A changed definition counts by its
new statements: each must be executed, also if it only came from another branch. The branch of a removed statement must
be executed as well. `raise` statements are exempt, because a row that exists did not end in one. A changed statement
outside functions counts if every function that uses it is executed. A field that was added to a class with a default
of constants alone is exempt, because code that reads it is changed itself. A new conditional expression is never
covered: its line does not show which side was executed.
"""

from __future__ import annotations

import ast
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from lab.provenance import Place, Repository

Lines = dict[str, set[int]]
"""Executed line numbers by file, relative to the repository."""
Result = TypeVar("Result")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Uncovered(NamedTuple):
    """A changed definition with lines that the golden batch does not execute."""

    place: str
    why: str


def traced(work: Callable[[], Result], repository: Repository) -> tuple[Result, Lines]:
    """Call `work`; return its result and the lines of the repository that it executes."""
    lines: Lines = {}
    prefix = f"{repository.root}/"

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return inside

    def entered(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(prefix) or "/.venv/" in name:
            return None
        lines.setdefault(name, set()).add(frame.f_lineno)
        return inside

    sys.settrace(entered)
    threading.settrace(entered)
    try:
        result = work()
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return result, {name.removeprefix(prefix): numbers for name, numbers in lines.items()}


def uncovered(older: Repository, newer: Repository, entries: tuple[str, ...], lines: Lines) -> list[Uncovered]:
    """Return what changed in the reach of the entries and is not executed. `lines` are of the newer checkout."""
    found = [Uncovered(name, "data file changed") for name in _changed_data(older, newer, entries)]
    reached = newer.reached(*entries)
    before = _contents(older, older.reached(*entries))
    contents = _contents(newer, reached)
    moved = {content for place, content in before.items() if contents.get(_of(newer, older, place)) != content}
    users: dict[Place, list[Place]] = {}
    for place, definition in reached.items():
        for target in definition.targets:
            users.setdefault(target, []).append(place)
    for place in reached:
        there = _of(older, newer, place)
        if (contents[place] == before[there]) if there in before else (contents[place] in moved):
            continue
        own = lines.get(str(place.file.relative_to(newer.root)), set())
        changed = _new_lines(older, newer, place)
        missed = [line for line in changed if line.unclear or not own & set(line.numbers)]
        outside = [line for line in missed if not line.in_function]
        missed = [line for line in missed if line.in_function]
        if outside and not all(_executed(newer, user, lines) for user in users.get(place, [place])):
            missed += outside
        if not missed and not outside and not _executed(newer, place, lines):
            missed = [_Line((_first(newer, place),), True)]
        if missed:
            where = ", ".join(str(min(line.numbers, default="removed")) for line in missed[:5])
            name = f"{place.file.relative_to(newer.root)}:{place.name or 'import'}"
            found.append(Uncovered(name, f"not executed: line {where}"))
    return found


class _Line(NamedTuple):
    numbers: tuple[int, ...]
    in_function: bool
    field: str = ""
    """The name of a field with a default of constants alone."""
    branch: tuple[str, ...] = ()
    """The statements around it, with the part of each that it is in."""
    choices: frozenset[str] = frozenset()
    """Its conditional expressions."""
    exempt: bool = False
    """True if it may be new without being executed."""
    unclear: bool = False
    """True if its lines do not show what was executed."""


def _changed_data(older: Repository, newer: Repository, entries: tuple[str, ...]) -> Iterator[str]:
    before, now = (
        {str(file.relative_to(each.root)): file.read_bytes() for file in each.data(*entries)} for each in (older, newer)
    )
    yield from (name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))


def _contents(repository: Repository, reached: Any) -> dict[Place, tuple[object, ...]]:
    """Return the text of each definition, with the names of the definitions that it refers to."""
    return {
        place: (each.text, tuple((target.file.relative_to(repository.root), target.name) for target in each.targets))
        for place, each in reached.items()
    }


def _of(repository: Repository, other: Repository, place: Place) -> Place:
    """Return the place in `repository` with the file and name of a place in the `other` checkout."""
    return Place(repository.root / place.file.relative_to(other.root), place.name)


def _statements(repository: Repository, place: Place) -> list[ast.stmt]:
    return repository.module(place.file).statements.get(place.name, [])


def _new_lines(older: Repository, newer: Repository, place: Place) -> list[_Line]:
    """Return the statements that a definition's older version does not have, and the branches that have lost one."""
    there = _of(older, newer, place)
    before, now = (list(_heads(_statements(*each))) for each in ((older, there), (newer, place)))
    left, fields = Counter((line.branch, head) for head, line in before), {line.field for _, line in before}
    choices = frozenset[str]().union(*(line.choices for _, line in before))
    found = []
    for head, line in now:
        if left[line.branch, head]:
            left[line.branch, head] -= 1
        elif not line.exempt and (not line.field or line.field in fields):
            found.append(line._replace(unclear=not line.choices <= choices))
    inside = {line.branch: line.in_function for _, line in before}
    free = {(line.branch, head) for head, line in before if line.exempt}
    poorer = {branch for (branch, head), count in left.items() if count and (branch, head) not in free}
    return [*found, *(_Line(_nearest(branch, now), inside[branch]) for branch in sorted(poorer))]


def _nearest(branch: tuple[str, ...], lines: list[tuple[str, _Line]]) -> tuple[int, ...]:
    """Return the lines of a branch; if it is gone, those of the one around it."""
    for depth in range(len(branch), -1, -1):
        if numbers := [number for _, line in lines if line.branch == branch[:depth] for number in line.numbers]:
            return tuple(numbers)
    return ()


def _heads(
    statements: Sequence[ast.stmt], branch: tuple[str, ...] = (), in_function: bool = False, in_class: bool = False
) -> Iterator[tuple[str, _Line]]:
    """Each statement without the statements inside it: its content, and the lines that it covers."""
    for node in statements:
        inner = list(_inner(node))
        text = f"{type(node).__name__} " + " ".join(map(_dumped, _own(node)))
        choices = frozenset(_dumped(each) for part in _own(node) for each in _choices(part))
        function = isinstance(node, _FUNCTIONS)
        documented = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        exempt = documented or isinstance(node, ast.Raise | ast.Pass | ast.Import | ast.ImportFrom)
        first = min((body[0].lineno for _, body in inner if body), default=None)
        last = first - 1 if first else node.end_lineno or node.lineno
        numbers = tuple(range(node.lineno, max(node.lineno, last) + 1))
        if isinstance(node, _FUNCTIONS):
            # A changed signature counts if the function runs.
            numbers = tuple(range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1))
        field = _field(node) if in_class else ""
        yield text, _Line(numbers, in_function or function, field, branch, choices, exempt)
        # The head of a function or class may change without a change of what is inside.
        around = node.name if isinstance(node, (*_FUNCTIONS, ast.ClassDef)) else text
        for part, body in inner:
            yield from _heads(
                body, (*branch, f"{around} {part}"), in_function or function, isinstance(node, ast.ClassDef)
            )


def _inner(node: ast.stmt) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yield the parts of a statement that hold statements, by what leads there."""
    for name in ("body", "orelse", "finalbody"):
        if isinstance(body := getattr(node, name, None), list):
            yield name, body
    for handler in getattr(node, "handlers", []):
        yield f"except {_dumped(handler.type)}", handler.body
    for case in getattr(node, "cases", []):
        yield f"case {_dumped(case.pattern)} {_dumped(case.guard)}", case.body


def _own(node: ast.stmt) -> list[object]:
    """Return the parts of a statement that hold no statements."""
    parts = [value for name, value in ast.iter_fields(node) if name not in ("body", "orelse", "finalbody", "handlers")]
    if isinstance(node, ast.Match):
        return [node.subject, *(each for case in node.cases for each in (case.pattern, case.guard))]
    return parts


def _choices(part: object) -> Iterator[ast.IfExp]:
    for each in part if isinstance(part, list) else [part]:
        if isinstance(each, ast.AST):
            yield from (found for found in ast.walk(each) if isinstance(found, ast.IfExp))


def _field(node: ast.stmt) -> str:
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if _is_constant(value):
            return name
    return ""


def _is_constant(value: ast.expr) -> bool:
    """Return whether a default has no name in it but those of what it calls."""
    called = [each.func for each in ast.walk(value) if isinstance(each, ast.Call)]
    return all(each in called for each in ast.walk(value) if isinstance(each, ast.Name | ast.Attribute))


def _dumped(part: object) -> str:
    if isinstance(part, ast.AST):
        return ast.dump(part)
    return " ".join(map(_dumped, part)) if isinstance(part, list) else repr(part)


def _executed(repository: Repository, place: Place, lines: Lines) -> bool:
    """Return whether any line inside the functions of a definition is executed; statements on import always are."""
    own = lines.get(str(place.file.relative_to(repository.root)), set())
    functions = [
        node for statement in _statements(repository, place) for node in ast.walk(statement)
        if isinstance(node, _FUNCTIONS)
    ]  # fmt: skip
    if not functions:
        return bool(own) or place.name == ""
    return any(own & set(range(node.body[0].lineno, (node.end_lineno or 0) + 1)) for node in functions)


def _first(repository: Repository, place: Place) -> int:
    return next((node.lineno for node in _statements(repository, place)), 1)
