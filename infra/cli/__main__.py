"""`python -m infra.cli` is the command `pointillist`."""

from infra.cli import main

main()
