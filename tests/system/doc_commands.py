"""Shell commands of the documentation's pages, and checks that they parse."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.infra.command_line import parse_arguments

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = [ROOT / "README.md", ROOT / "docs/tutorial.md", *sorted((ROOT / "docs/howto").glob("*.md"))]
_BLOCK: Final = re.compile(r"^```(?:sh|bash|shell|console)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TEMPLATES: Final = sorted((ROOT / "consumers/console/templates").glob("*.html"))
_SPAN: Final = re.compile(r"(?:(?<!`)`|<code>)(pointillist [^`\n<]+)(?:`(?!`)|</code>)")
_OPTION: Final = re.compile(r"<code>(--[^<]+)</code>")
_TARGET: Final = re.compile(r"^([a-z-]+):.*## ", re.MULTILINE)


@dataclass(frozen=True)
class Command:
    """One command of a page: the page's name and the words of the command line."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(self.words)


def block_commands(page: Path) -> list[Command]:
    """Return the commands of a page's shell blocks, in order, without comments."""
    lines = "".join(_BLOCK.findall(page.read_text())).replace("\\\n", " ").splitlines()
    found = (tuple(shlex.split(line, comments=True)) for line in lines)
    return [Command(page.name, words) for words in found if words]


def span_commands(page: Path) -> list[Command]:
    """Return the commands `pointillist …` in the text of a page or of a template of the console."""
    return [Command(page.name, tuple(shlex.split(span))) for span in _SPAN.findall(page.read_text())]


def named_options(template: Path) -> set[str]:
    """Return the options of the console that a template names without their command."""
    return set(_OPTION.findall(template.read_text()))


def check_parses(command: Command) -> None:
    """Raise if a program, target, subcommand, option or shipped file that the command names does not exist."""
    match command.words:
        case ["cd", "pointillist"]:
            return
        case ["make", target, *rest]:
            assert target in _TARGET.findall((ROOT / "Makefile").read_text()), f"no target {target}"
            assert all(word.startswith("ARGS=") for word in rest), rest
            if target == "up":
                _check_up(shlex.split(rest[0].removeprefix("ARGS=") if rest else ""))
        case [program, *arguments] if Path(program).name == "pointillist":
            parse_arguments(arguments)
        case ["pipx", "install", wheel]:
            assert wheel == f"./pointillist-{version('pointillist')}-py3-none-any.whl"
        case _:
            raise AssertionError(f"expected a program that can be checked, got {command}")


def _check_up(arguments: list[str]) -> None:
    from infra.up.settings import scenario_file

    options = parse_arguments(["up", *arguments])
    if options["scenario"] is not None:
        assert scenario_file(options["scenario"]).is_file(), f"no scenario {options['scenario']}"


def check_mentions(command: Command) -> None:
    """Raise if the subcommand or an option of a command in a text does not exist. A text may leave arguments out."""
    words = [word for word in command.words[1:] if word != "…"]
    while words and words[0].startswith("--"):  # an option of `pointillist` itself, with its value
        words = words[2:]
    try:
        parse_arguments(words)
    except ValueError:  # a group without a subcommand
        return
    except Exception as error:
        # Compared by name, because some releases of typer contain a copy of click.
        if type(error).__name__ != "MissingParameter":
            raise
