"""`create` in a child process with limits of time and memory, against a network that would exhaust either.

The limits are not a sandbox: the child has the rights of its user.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from infra.bundling.bundle_request import BundleRequest, PrintLine, Skipped, Summary
from schemas.errors import BundleError, UserError, first_line, typed_text

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

_GIB: Final = 2**30
_ENDS_S: Final = 5.0
"""Seconds for a child to end after it has closed its pipe."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a trial."""

    seconds: float = 600.0
    """Seconds of wall clock, downloads of weights included; processors wait equally long for a model."""
    memory_gib: float = 8.0
    """GiB of address space beyond the needs of the libraries."""


def create_within(limits: Limits, wanted: BundleRequest, out: Path, print_line: PrintLine, skipped: Skipped) -> Summary:
    """Write the bundle into the folder `out`, as `create` does. Raises ConfigError, BundleError.

    A trial that exceeds the limits is killed, raises BundleError and leaves nothing.
    """
    from infra.bundling.folder import appearing

    context = multiprocessing.get_context("spawn")  # a fork would copy locks held by threads that the child lacks
    with appearing(out) as folder:
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_run, args=(limits, wanted, folder, out, sender), daemon=True)
        # The child takes no module from the current folder, as `python -P`.
        os.environ["PYTHONSAFEPATH"] = "1"
        child.start()
        sender.close()
        try:
            return _result(child, receiver, limits, wanted.network, print_line, skipped)
        finally:
            child.kill()
            child.join()
            receiver.close()


def _result(
    child: SpawnProcess, receiver: Connection, limits: Limits, network: str, print_line: PrintLine, skipped: Skipped
) -> Summary:
    """Relay the child's lines until it has a result. The time begins when its libraries are loaded."""
    deadline: float | None = None
    while True:
        if not receiver.poll(None if deadline is None else max(0.0, deadline - time.monotonic())):
            raise BundleError(
                f"{network}: expected a trial of at most {limits.seconds:g} s, got a longer one. If the network "
                "is only slow, raise --most-seconds."
            )
        try:
            message = receiver.recv()
        except EOFError:
            child.join(_ENDS_S)
            raise BundleError(_ended(child.exitcode, limits, network)) from None
        match message:
            case None:
                deadline = time.monotonic() + limits.seconds
            case Summary():
                return message
            case UserError():
                raise message
            case str():
                print_line(message)
            case (str(name), str(why)):
                skipped(name, why)


def _ended(status: int | None, limits: Limits, network: str) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        return (
            f"{network}: expected a trial within {limits.memory_gib:g} GiB, got one killed by {name}. "
            "If the network is only large, raise --most-memory."
        )
    return f"{network}: expected a trial with status 0, got {status}. Choose another network."


def _run(limits: Limits, wanted: BundleRequest, folder: Path, out: Path, sender: Connection) -> None:
    """Run in the child: its first message is None, its last one a Summary or the error that the parent raises."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent as well, which kills this process
    from infra.bundling.create import fill
    from processors.device.memory import lacks_memory

    _limit(limits)
    sender.send(None)
    try:
        made = fill(wanted, folder, out, sender.send, partial(_skipped, sender))
    except UserError as error:
        sender.send(error)
    except Exception as error:  # a user's network, and the libraries that read it, may raise anything
        if lacks_memory(error):
            refused = (
                f"{wanted.network}: expected a trial within {limits.memory_gib:g} GiB, got "
                f"{first_line(error)[:200]}. If the network is only large, raise --most-memory."
            )
        else:
            refused = (
                f"{wanted.network}: expected a network that can be tried, got "
                f"{typed_text(error)}. Choose another network or option."
            )
        sender.send(BundleError(refused))
    else:
        sender.send(made.summary)


def _skipped(sender: Connection, name: str, why: str) -> None:
    sender.send((name, why))


def _limit(limits: Limits) -> None:
    """Bound memory and CPU time from here on: the libraries are loaded, and their address space does not count."""
    used_s = sum(os.times()[:2])
    _lower(resource.RLIMIT_AS, psutil.Process().memory_info().vms + int(limits.memory_gib * _GIB))
    # If the parent is gone or stopped, the kernel ends the child at that time.
    _lower(resource.RLIMIT_CPU, int(used_s + limits.seconds * (os.cpu_count() or 1)) + 1)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))
