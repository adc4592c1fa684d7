"""A program that answers as Grafana does: there is no Debian package of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

STAND_IN = '''#!{python}
"""Answers as Grafana does, and writes down what it was given."""
import configparser, http.server, json, os, sys
options = dict(word.split("=", 1) for word in sys.argv[2:])
settings = configparser.ConfigParser(interpolation=None)
settings.read(options["--config"])
kept = {{name: value for name, value in os.environ.items() if name.startswith(("POINTILLIST_", "GF_"))}}
print(json.dumps({{"words": sys.argv[1:], "environment": kept}}), flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
server = settings["server"]
http.server.HTTPServer((server["http_addr"], int(server["http_port"])), Handler).serve_forever()
'''


def install_grafana(folder: Path, patched: pytest.MonkeyPatch, program: str = STAND_IN) -> Path:
    """A stand-in on the path, as a tarball of Grafana lies on a disk."""
    made = folder / "grafana" / "bin" / "grafana"
    made.parent.mkdir(parents=True)
    made.write_text(program.format(python=os.path.realpath("/proc/self/exe")))
    made.chmod(0o755)
    (made.parent.parent / "conf").mkdir()
    (made.parent.parent / "conf" / "defaults.ini").write_text("")
    patched.setenv("PATH", f"{made.parent}{os.pathsep}{os.environ['PATH']}")
    return made
