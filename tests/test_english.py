"""The English of docstrings and comments, as far as a program can judge it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("benchmarks", "consumers", "infra", "lab", "processors", "producers", "schemas")
PLACES = (*PRODUCT, "tests")
FIRST_WORDS = {
    "what", "who", "whose", "whom", "those", "where", "how", "so", "as", "of", "by", "to", "whoever", "whatever",
}  # fmt: skip
"""A first line is a noun phrase or an imperative verb; these words begin neither."""
NOUN_PHRASES = {"whether", "the", "a", "an", "another"}
"""A function's first line is an imperative verb; these words begin none."""
WORDS = re.compile(
    r"\b(anew|whoever|whomever|thereof|till|beside|so\s+many|says?|said|tells?|told|hears?|heard)\b", re.IGNORECASE
)
CODE = re.compile(r"`[^`]*`")


class Module:
    """The syntax nodes of a Python file, and its source. A tree is walked once for all rules."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.source = file.read_text()
        self.nodes = list(ast.walk(ast.parse(self.source, str(file))))


def texts(module: Module) -> Iterator[tuple[int, str, bool]]:
    """Yield (line, text, is a docstring) for each docstring, attribute docstrings included, and each comment.

    Comments are left out if none of them can break a rule.
    """
    for node in module.nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value, True
    if not any("#" in line and WORDS.search(line) for line in module.source.splitlines()):
        return  # comments follow no other rule, and tokens take as long as the syntax tree
    for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False


def faults(module: Module) -> list[str]:
    """Return a line for each text that breaks a rule."""
    found = []
    for line, text, is_docstring in texts(module):
        first = re.match(r"\W*(\w+)", text)
        if is_docstring and first and first[1].lower() in FIRST_WORDS and not text.lstrip().startswith("`"):
            found.append(f"{module.file}:{line}: begins with {first[1]!r}")
        found += [f"{module.file}:{line}: {word[0]!r}" for word in WORDS.finditer(CODE.sub("", text))]
    return found


def noun_phrases(module: Module) -> list[str]:
    """Return a line for each function whose docstring begins with a noun phrase.

    Properties are nouns, and the docstring of `__init__` describes its arguments.
    """
    found = []
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
            first = re.match(r"\s*(\w+)", ast.get_docstring(node, clean=False) or "")
            if first and first[1].lower() in NOUN_PHRASES and not is_property(node):
                found.append(f"{module.file}:{node.lineno}: {node.name} begins with {first[1]!r}")
    return found


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a decorator makes a property of the function."""
    return any(ast.unparse(each).endswith("property") for each in node.decorator_list)


def files(place: str) -> list[Path]:
    """Return the Python files of a folder; generated ones are left out."""
    return sorted(each for each in (ROOT / place).rglob("*.py") if not each.stem.endswith("_pb2"))


@pytest.mark.parametrize("place", PLACES)
def test_docstrings_comments_and_log_events_are_plain_english(place: str) -> None:
    rules = (faults, noun_phrases, wrong_events) if place in PRODUCT else (faults, noun_phrases)
    checked = files(place)
    assert checked
    assert [fault for module in map(Module, checked) for rule in rules for fault in rule(module)] == []


def test_a_noun_phrase_is_found_in_functions_alone(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        'class Queue:\n    """A queue."""\n'
        '    def __init__(self, most):\n        """A queue holds `most` items."""\n'
        '    @cached_property\n    def first(self):\n        """The first item."""\n'
        '    async def is_full(self):\n        """Whether it is full."""\n'
    )
    assert [each.partition(": ")[2] for each in noun_phrases(Module(file))] == ["is_full begins with 'Whether'"]


def test_a_fault_is_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('"""What it is."""\nA = 1\n"""Of those."""\n# The camera is told anew.\n"""`told` is code."""\n')
    assert [each.partition(": ")[2] for each in faults(Module(file))] == [
        "begins with 'What'",
        "begins with 'Of'",
        "'told'",
        "'anew'",
    ]


LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z][a-z0-9_]*")


def events(module: Module) -> Iterator[tuple[int, str]]:
    """Yield (line, event) for each call of a logger; an event that a function gets as `event` is checked at its
    calls."""
    for node in module.nodes:
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr=level), args=[first, *_]):
                if level in LEVELS:
                    yield from ((node.lineno, each) for each in _values(first))
            case ast.Call(func=ast.Attribute(attr="log_problem" | "_log_problem" | "_failed"), args=[first, _, *_]):
                yield from ((node.lineno, each) for each in _values(first))
            case ast.Call(func=ast.Name(id="attempt"), args=[_, event, *_]):
                yield from ((node.lineno, each) for each in _values(event))
            case ast.Call(func=ast.Name(id="repeat"), args=[_, _, event]):
                yield from ((node.lineno, each) for each in _values(event))


def _values(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=body, orelse=other):
            return [*_values(body), *_values(other)]
        case ast.Name(id="event"):
            return []
    return [ast.unparse(node)]


def wrong_events(module: Module) -> list[str]:
    """Return a line for each event that is not words joined by underscores."""
    return [f"{module.file}:{line}: {event!r}" for line, event in events(module) if not EVENT.fullmatch(event)]


def test_an_event_that_is_a_sentence_is_found(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text('log.info("kafka takes no records")\n_log.error("batch_rejected" if bad else f"it {x}")\n')
    assert [each.partition(": ")[2] for each in wrong_events(Module(file))] == [
        "'kafka takes no records'",
        "\"f'it {x}'\"",
    ]
