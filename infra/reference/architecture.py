"""The page of the architecture: each folder's rooms, what they hold, and which rooms they import."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

from infra.reference.markdown import code, page, table
from infra.settings.described import paragraph

ROOT: Final = Path(__file__).parents[2]

FOLDERS: Final = (
    "schemas",
    "producers",
    "processors",
    "consumers",
    "consumers.console",
    "infra",
    "lab",
    "benchmarks",
)
"""Packages whose rooms the page shows, the contract first."""


def architecture() -> str:
    """Return the page."""
    parts = []
    for package in FOLDERS:
        rooms = imports_by_room(package)
        arrows = sum(map(len, rooms.values()))
        rows = [
            (code(_short(room)), summary(room), ", ".join(code(_short(each)) for each in sorted(rooms[room])) or "–")
            for room in upward(rooms)
        ]
        parts += [
            f"## {package.replace('.', '/')}",
            summary(package),
            f"{len(rooms)} rooms, {arrows} arrows.",
            table(("room", "holds", "imports"), rows),
        ]
    return page(
        "Architecture",
        "A *room* is a file or a folder directly below one of the folders here. Each room imports only rooms above "
        "it in its table. Between the folders, `schemas` imports nothing of the project; `producers`, `processors` "
        "and `consumers` import `schemas`; `lab` also imports the processors' stages and networks; `infra` starts "
        "them all. A test checks both.",
        *parts,
    )


def imports_by_room(package: str) -> dict[str, set[str]]:
    """Return the rooms of a package, each with the rooms of the same package that it imports."""
    depth = package.count(".") + 2
    rooms: defaultdict[str, set[str]] = defaultdict(set)
    for file in modules(package):
        room = room_of(dotted(file), depth)
        if room == package:
            continue
        inside = {room_of(name, depth) for name in imported(file) if name.startswith(f"{package}.")}
        rooms[room] |= inside - {room, package}
    return {room: {each for each in found if each in rooms} for room, found in rooms.items()}


def upward(rooms: dict[str, set[str]]) -> list[str]:
    """Return the rooms such that each follows the rooms that it imports; rooms of one level are sorted by name.

    Raises graphlib.CycleError if rooms import each other in a cycle.
    """
    sorter = TopologicalSorter(rooms)
    sorter.prepare()
    found: list[str] = []
    while sorter.is_active():
        level = sorted(sorter.get_ready())
        found += level
        sorter.done(*level)
    return found


def summary(name: str) -> str:
    """Return the first paragraph of a module's or package's docstring."""
    path = ROOT / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) if file.is_file() else None
    return paragraph(text)


def modules(package: str) -> list[Path]:
    """Return the files of a package, without generated ones."""
    folder = ROOT / package.replace(".", "/")
    return sorted(file for file in folder.rglob("*.py") if not file.name.endswith("_pb2.py"))


@cache
def imported(file: Path) -> frozenset[str]:
    """Return the full names that a module imports anywhere in it. Raises ValueError for a relative import."""
    names = set()
    for node in _statements(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{file}: expected absolute imports, got a relative one. Name the module in full.")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements of a module, at any depth. Expressions, which are most nodes, contain no statement."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        yield node
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            pending += getattr(node, part, ())


def dotted(file: Path) -> str:
    """Return the full name of the module in a file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str, depth: int) -> str:
    """Return the first `depth` parts of a module's full name."""
    return ".".join(name.split(".")[:depth])


def _short(room: str) -> str:
    return room.rpartition(".")[2]
