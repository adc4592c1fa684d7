"""The limits of a decoding process, set by itself before it reads a byte of a camera.

Each limit is independent of the others. A kernel or container may refuse some; `confine` returns those that hold.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct
from pathlib import Path
from typing import Final

CALLS: Final = "system calls"
"""The limit that keeps a process from files, sockets and other processes."""
CPU_S: Final = 4 * 3600
"""CPU seconds of a process: it is replaced long before."""

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_DUMPABLE, _SET_SECCOMP, _NO_NEW_PRIVILEGES = 4, 22, 38
_FILTER_MODE: Final = 2
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's number of the architecture, and the column in `_CALLS`."""
_CALLS: Final = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, 73), "lseek": (8, 62),
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172), "sendto": (44, 206), "recvfrom": (45, 207),
    "sendmsg": (46, 211), "recvmsg": (47, 212), "exit": (60, 93), "gettimeofday": (96, 169), "getrusage": (98, 165),
    "sigaltstack": (131, 132), "gettid": (186, 178), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "getrandom": (318, 278),
    "membarrier": (324, 283), "rseq": (334, 293),
}  # fmt: skip
"""Allowed system calls with their numbers. None opens a file or a socket, or makes or signals a process."""


def confine(memory_bytes: int) -> list[str]:
    """Give up rights; return the names of the limits that hold.

    `memory_bytes` is the address space that the process may still add. Call it once, on the only thread, after all
    imports.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    held = []
    if libc.unshare(_NEW_USER | _NEW_NET) == 0:
        held.append("no network")
    for name, kind, limit in (
        ("memory", resource.RLIMIT_AS, address_space() + memory_bytes),
        ("descriptors", resource.RLIMIT_NOFILE, len(list(Path("/proc/self/fd").iterdir()))),
        ("processes", resource.RLIMIT_NPROC, 0),
        ("files", resource.RLIMIT_FSIZE, 0),
        ("core", resource.RLIMIT_CORE, 0),
        ("cpu", resource.RLIMIT_CPU, CPU_S),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, limit))
            held.append(name)
    libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0:
        held.append("no new privileges")
        if _filter_calls(libc):
            held.append(CALLS)
    return held


def address_space(process: int | str = "self") -> int:
    """Return the bytes of address space of a process, by its id. Raises OSError if it has ended."""
    descriptor = os.open(f"/proc/{process}/statm", os.O_RDONLY)  # for each unit: a path object takes longer
    try:
        return int(os.read(descriptor, 128).split()[0]) * resource.getpagesize()
    finally:
        os.close(descriptor)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_calls(libc: ctypes.CDLL) -> bool:
    """Install the filter of system calls: others fail with EPERM. Returns whether it is in force."""
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    code = _program(*known)
    program = _Program(len(code) // 8, code)
    done: int = libc.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program), 0, 0)
    return done == 0


def _program(architecture: int, column: int) -> bytes:
    """Return the filter in the kernel's bytecode: eight bytes for each instruction (linux/filter.h)."""

    def step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("=HBBI", code, then, otherwise, value)

    numbers = [call[column] for call in _CALLS.values()]
    # The architecture is at offset 4 of the call's description, its number at 0.
    code = step(_LOAD, 4) + step(_EQUAL, architecture, 1, 0) + step(_RETURN, _KILL) + step(_LOAD, 0)
    for at, number in enumerate(numbers):
        code += step(_EQUAL, number, len(numbers) - at, 0)
    return code + step(_RETURN, _FAIL | errno.EPERM) + step(_RETURN, _ALLOW)
