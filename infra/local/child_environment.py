"""Environment variables that child processes inherit: those that configure programs, and no credentials."""

from __future__ import annotations

import os
from typing import Final

_INHERITED: Final = (
    "ATEN_CPU_CAPABILITY",
    "COVERAGE_",  # for the coverage of subprocesses
    "CUDA_",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "HOME",
    "JAVA_HOME",
    "KMP_",
    "LANG",
    "LANGUAGE",
    "LC_",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOGNAME",
    "MALLOC_",
    "MKL_",
    "NVIDIA_DRIVER_CAPABILITIES",  # listed by name, because NVIDIA_API_KEY is a secret
    "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_",
    "OPENBLAS_",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONFAULTHANDLER",
    "PYTHONHASHSEED",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSAFEPATH",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
    "PYTHONWARNINGS",
    "PYTORCH_",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TORCH_",
    "TZ",
    "USER",
    "VIRTUAL_ENV",
    "XDG_",
)
"""Names, and prefixes that end with `_`."""
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Variables for clients of HTTP. Their URLs may hold a password."""
STORES: Final = ("AWS_", "AZURE_", "FSSPEC_", "GCSFS_", "GOOGLE_", "REQUESTS_CA_BUNDLE", *PROXIES)
"""Variables for clients of object stores, with their credentials."""


def inherited(*others: str) -> dict[str, str]:
    """Return the variables of this process for a child that must not get its secrets.

    `others` are further variables that the child needs: names, and prefixes that end with `_`.
    """
    names = {*_INHERITED, *others}
    prefixes = tuple(name for name in names if name.endswith("_"))
    return {name: value for name, value in os.environ.items() if name in names or name.startswith(prefixes)}
