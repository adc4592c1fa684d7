"""The option `--allow-code`: permission for a local bundle to run its own code."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def _allow(allowed: bool) -> bool:
    """Allow code in this process and in every role that it starts."""
    if allowed:
        os.environ["POINTILLIST_ALLOW_CODE"] = "1"
    return allowed


AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        callback=_allow,
        help="Allow a bundle on this machine to run its own code: a factory or TorchScript. For published "
        "bundles, the signature of a trusted signer allows it. POINTILLIST_ALLOW_CODE=1 sets it too.",
    ),
]
