"""A stand-in for the command line that a console's jobs run; the variable MODE selects its behaviour.

done: succeeds. lossy: writes a repair that is not published. refuses: prints one line and exits with status 2.
hangs: never exits. killed: prints one line and is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

FIGURES = {
    "held_out": {"count": 50, "right_before": 48, "broken": 1, "mended": 2, "lost": -0.02},
    "clean_accuracy": {"before": 0.951, "after": 0.948},
    "attack_success": {"before": 0.998, "after": 0.012},
    "target_class": 3,
    "trigger": "stamp",
}


def main(arguments: list[str], mode: str) -> int:
    """Run the command. Return its exit status."""
    print(json.dumps({"arguments": arguments}), flush=True)
    print(json.dumps({"phase": "unlearn", "step": 3, "steps": 10}), flush=True)
    if mode == "hangs":
        print(f"pid {os.getpid()}", flush=True)
        time.sleep(600)
    if mode == "refuses":
        print("error: expected at least 50 clean pictures, got 3", flush=True)
        return 2
    if mode == "killed":
        print("pictures/7.jpg: skipped: expected a picture", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments[0] == "lab":
        options = dict(zip(arguments[2::2], arguments[3::2], strict=False))
        assert list(Path(options["--quarantine"]).rglob("*.png.sealed"))
        out = Path(options["--out"])
        (out / ".pictures").mkdir(parents=True, exist_ok=True)
        (out / ".pictures" / "stamped.png").write_bytes(b"a picture")
        Path(options["--json"]).write_text(json.dumps(FIGURES | {"published": mode == "done"}))
        if mode == "lossy":
            print("error: not published: it lost too much", flush=True)
            return 2
        (out / "model.toml").write_text('name = "sick"\nversion = "1-repaired"\n')
    elif arguments[0] == "teach":
        labels, options = Path(arguments[2]), dict(zip(arguments[3::2], arguments[4::2], strict=False))
        out = Path(options["--out"])
        out.mkdir(parents=True)
        classes = sorted(each.name for each in labels.iterdir())
        (out / "model.toml").write_text(f'name = "{options["--name"]}"\nversion = "1"\nclasses = {classes}\n')
    else:
        if "--clean" in arguments and (clean := Path(arguments[arguments.index("--clean") + 1])).is_dir():
            print(json.dumps({"clean": {each.name: len(list(each.iterdir())) for each in clean.iterdir()}}), flush=True)
        print("served after 0.4 s by processor-1", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ["MODE"]))
