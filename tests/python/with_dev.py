#!/usr/bin/env python3
"""Runs `syncline dev` on a folder of its own, and a command beside it.

    with_dev.py path/to/syncline -- command...

The command finds SYNCLINE_TEST_ADDRESS, SYNCLINE_TEST_TOKEN and, for the server's
data, SYNCLINE_TEST_FOLDER in its environment. When it ends, so does the server, and the folder is gone. Pages of
the origins in SYNCLINE_TEST_ORIGINS may call the server.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

# On a cold machine `initdb` takes its time.
START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 60


class Dev:
    """A running `syncline dev`; its `.syncline` folder is in `folder`."""

    def __init__(self, folder, address, banner):
        self.folder = folder
        self.address = address
        self.banner = banner

    @property
    def token(self):
        return (self.folder / ".syncline" / "dev.token").read_text().strip()


def clean_environment():
    """Ours, without settings of the developer's own servers."""
    keep = {"SYNCLINE_PG_BIN"}
    return {
        name: value
        for name, value in os.environ.items()
        if name in keep or not (name.startswith("SYNCLINE_") or name == "DATABASE_URL")
    }


def read_banner(process, log):
    """What the server prints until it says how it is stopped."""
    watchdog = threading.Timer(START_SECONDS_MAX, process.kill)
    watchdog.start()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            watchdog.cancel()
            return "".join(lines)
    watchdog.cancel()
    log.seek(0)
    raise RuntimeError(f"syncline dev did not start:\n{''.join(lines)}{log.read()}")


@contextlib.contextmanager
def dev(program, *arguments):
    """A server on a free port, stopped at the end as by Ctrl-C."""
    folder = Path(tempfile.mkdtemp(prefix="syncline-dev-"))
    # As root, PostgreSQL runs as another user, who has to get to its data.
    folder.chmod(0o755)
    command = [str(Path(program).resolve()), "dev", "--listen", "127.0.0.1:0", *arguments]
    log = tempfile.TemporaryFile(mode="w+")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    try:
        banner = read_banner(process, log)
        address = re.search(r"^ +address +(\S+)", banner, re.MULTILINE).group(1)
        yield Dev(folder, address, banner)
        process.send_signal(signal.SIGINT)
        code = process.wait(STOP_SECONDS_MAX)
        if code != 0:
            log.seek(0)
            raise RuntimeError(f"syncline dev ended with code {code}:\n{log.read()}")
    finally:
        if process.poll() is None:
            # First politely, so that its PostgreSQL ends as well.
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(__doc__)
    # So that a supervisor's SIGTERM also cleans up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    origins = os.environ.get("SYNCLINE_TEST_ORIGINS", "")
    with dev(sys.argv[1], f"--cors-origins={origins}") as server:
        environment = dict(os.environ)
        environment["SYNCLINE_TEST_ADDRESS"] = server.address
        environment["SYNCLINE_TEST_TOKEN"] = server.token
        environment["SYNCLINE_TEST_FOLDER"] = str(server.folder / ".syncline")
        code = subprocess.run(sys.argv[3:], env=environment).returncode
    sys.exit(code)


if __name__ == "__main__":
    main()
