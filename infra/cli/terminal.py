"""The terminal to which commands print."""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Annotated, Any, Final, NoReturn

import rich.console
import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_USUAL_COLUMNS: Final = 80


class Console(rich.console.Console):
    """Rich's console, which prints `:a:` as it stands: addresses contain such text, and rich takes it for an emoji."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)
        if not self.width:  # COLUMNS=0, of a terminal without a size: rich would print nothing
            self.width = _USUAL_COLUMNS

    def on_broken_pipe(self) -> NoReturn:
        """Raise BrokenPipeError, and write to /dev/null from now on: the reader of the output has ended.

        Rich raises SystemExit here, which ends a run that would continue without the output.
        """
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def print_line(self, line: str) -> None:
        """Print a line without markup or colours."""
        self.print(line, markup=False, highlight=False)


def print_line(line: str, *, err: bool = False) -> None:
    """Print a line for people without markup or colours, on stdout or with `err` on stderr."""
    Console(stderr=err, soft_wrap=True).print_line(line)


def print_json(document: object) -> None:
    """Print a document as JSON on stdout, without colours: programs read it.

    Characters outside ASCII stay readable. They are escaped if stdout is not in UTF, or if they act on a terminal.
    """
    is_unicode = sys.stdout.encoding.lower().startswith("utf")
    text = json.dumps(document, indent=2, ensure_ascii=not is_unicode)
    typer.echo("".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text))


def print_skipped(file: str, why: str) -> None:
    """Print on stderr that a picture is left out, and the reason."""
    print_line(f"skipped {file}: {why}", err=True)
