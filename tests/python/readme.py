#!/usr/bin/env python3
"""Runs the commands of the documentation and compares what they print.

    readme.py path/to/syncline

Takes the shell blocks of the README's sections "Try it" and "Command line", and of
the worked examples in docs/conflicts.md, as they are and runs each section beside a
fresh `syncline dev`; only the address is replaced, by a free one, which commands of
`syncline` find in their environment. A json block behind
a shell block is what the command has to print, with … for what differs each
time, and a field named … for fields that are left out; without one it has to
succeed and print something. If there is no grpcurl, the stand-in beside this
file takes its place.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from with_dev import clean_environment, dev

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SECTIONS = [
    ("README.md", "Try it"),
    ("README.md", "Command line"),
    ("docs/conflicts.md", "Worked examples"),
]
ADDRESS = "127.0.0.1:50051"
ANYTHING = "…"
COMMAND_SECONDS_MAX = 60
# What the commands that `syncline dev` prints answer, and in how many documents.
BANNER_ANSWERS = [("MUTATION_OUTCOME_APPLIED", 1), ("Try Syncline", 1), ("Try Syncline", 2)]


def section(text, title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no section {title}"
    return found.group(1)


def examples(text):
    """Each command with the documents that it has to print, or None."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    for index, (language, block) in enumerate(blocks):
        if language in ("sh", "shell", "bash"):
            after = blocks[index + 1] if index + 1 < len(blocks) else ("", "")
            yield block.strip(), documents(after[1]) if after[0] == "json" else None


def documents(text):
    """The JSON values at the beginning of the text; the last may be incomplete."""
    decoder, found = json.JSONDecoder(), []
    text = text.strip()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            break
        found.append(value)
        text = text[end:].lstrip()
    return found


def matches(expected, actual):
    if expected == ANYTHING:
        return isinstance(actual, str) and actual != ""
    if isinstance(expected, dict) and isinstance(actual, dict):
        shown = {key: value for key, value in expected.items() if key != ANYTHING}
        whole = shown.keys() == expected.keys()
        return (shown.keys() == actual.keys() if whole else shown.keys() <= actual.keys()) and all(
            matches(value, actual[key]) for key, value in shown.items()
        )
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(map(matches, expected, actual))
    return expected == actual


def run(command, folder, environment, enough):
    """What the command prints until that is enough, or until it ends by itself,
    and its exit code, which is None if it was ended."""
    process = subprocess.Popen(
        ["sh", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    printed, deadline = b"", time.monotonic() + COMMAND_SECONDS_MAX
    try:
        while not enough(printed.decode(errors="replace")):
            left = deadline - time.monotonic()
            assert left > 0, f"printed too little in time:\n{printed.decode()}"
            if select.select([process.stdout], [], [], left)[0]:
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return printed.decode(), process.wait()
                printed += chunk
        # One that ends by itself is given the time to.
        try:
            return printed.decode(), process.wait(1)
        except subprocess.TimeoutExpired:
            return printed.decode(), None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def check(command, expected, server, environment):
    command = command.replace(ADDRESS, server.address)
    environment = {**environment, "SYNCLINE_SERVER": f"http://{server.address}"}
    count = len(expected) if expected else None
    printed, code = run(
        command,
        server.folder,
        environment,
        lambda text: count is not None and len(documents(text)) >= count,
    )
    assert code in (0, None), f"ended with code {code}:\n{printed}"
    assert printed.strip(), "printed nothing"
    if expected is not None:
        actual = documents(printed)
        assert matches(expected, actual), (
            f"printed\n{json.dumps(actual, indent=2, ensure_ascii=False)}\n"
            f"but the documentation says\n{json.dumps(expected, indent=2, ensure_ascii=False)}"
        )


def provide_grpcurl(folder, environment):
    if shutil.which("grpcurl"):
        return "the installed grpcurl"
    stand_in = folder / "grpcurl"
    stand_in.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "grpcurl.py"}" "$@"\n')
    stand_in.chmod(0o755)
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
    return "the stand-in for grpcurl"


def provide_program(program, folder, environment):
    (folder / "syncline").symlink_to(Path(program).resolve())
    environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"


def banner_commands(banner):
    return [line.strip() for line in banner.splitlines() if line.strip().startswith("grpcurl ")]


def run_banner(server, environment):
    """What `syncline dev` tells to paste has to work as well."""
    pasted = banner_commands(server.banner)
    assert len(pasted) == len(BANNER_ANSWERS), server.banner
    for command, (answer, count) in zip(pasted, BANNER_ANSWERS):
        printed, code = run(
            command, server.folder, environment, lambda text: len(documents(text)) >= count
        )
        assert code in (0, None) and answer in printed, (command, code, printed)
        print(f"ok  banner: …{command[-60:]}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    environment = clean_environment()
    with tempfile.TemporaryDirectory() as bin:
        print(f"with {provide_grpcurl(Path(bin), environment)}")
        provide_program(sys.argv[1], Path(bin), environment)
        for file, title in SECTIONS:
            cases = list(examples(section((ROOT / file).read_text(encoding="utf-8"), title)))
            assert len(cases) >= 3, f"{file} has lost its commands"
            with dev(sys.argv[1]) as server:
                for command, expected in cases:
                    about = ADDRESS in command or command.startswith("syncline ")
                    assert about, f"not about {ADDRESS}:\n{command}"
                    check(command, expected, server, environment)
                    print(f"ok  {file}: …{command.splitlines()[-1][-60:]}")
                if (file, title) == SECTIONS[0]:
                    run_banner(server, environment)


if __name__ == "__main__":
    main()
