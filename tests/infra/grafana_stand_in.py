"""A stand-in for Grafana, of which there is no Debian package."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

STAND_IN = '''#!{python}
"""A Grafana that answers health checks, and prints its arguments and its environment."""
import configparser, http.server, json, os, sys
options = dict(word.split("=", 1) for word in sys.argv[2:])
settings = configparser.ConfigParser(interpolation=None)
settings.read(options["--config"])
passed = {{name: value for name, value in os.environ.items() if name.startswith(("POINTILLIST_", "GF_"))}}
print(json.dumps({{"words": sys.argv[1:], "environment": passed}}), flush=True)
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
    """Unpack the stand-in as a tarball of Grafana would be, put it on the path, and return the program."""
    executable = folder / "grafana" / "bin" / "grafana"
    executable.parent.mkdir(parents=True)
    executable.write_text(program.format(python=os.path.realpath("/proc/self/exe")))
    executable.chmod(0o755)
    (executable.parent.parent / "conf").mkdir()
    (executable.parent.parent / "conf" / "defaults.ini").write_text("")
    patched.setenv("PATH", f"{executable.parent}{os.pathsep}{os.environ['PATH']}")
    return executable
