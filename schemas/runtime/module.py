"""The command line of a child process that runs one of the project's modules."""

from __future__ import annotations

import sys
from typing import Final

MODULE: Final = (sys.executable, "-P", "-m")
"""This interpreter and its options; the name of the module follows. With -P, no import comes from the current
folder."""
