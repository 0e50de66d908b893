"""Run a command, show what it prints as it prints it, keep it in a file, and find the reason when it fails."""

import codecs
import os
import re
import subprocess
import sys
from pathlib import Path

PIECE = 1 << 14
TAIL = 1 << 16
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
GIVEN_UP = re.compile(r"Error during evaluation: (.*?)(?:\. Please set `--verbosity|$)")
ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Unsupported\w*|Unknown\w*)\b:? ?.*")


def launch(command: list[str], environment: dict[str, str], log: Path) -> int:
    """Run `command` to its end; its output goes to stderr and to `log`.

    Args:
        environment: added to this process' own.

    Returns:
        Its exit code.
    """
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    assert process.stdout is not None
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    try:
        with log.open("wb") as file:
            while piece := process.stdout.read(PIECE):
                file.write(piece)
                sys.stderr.write(decode(piece))
                sys.stderr.flush()
        return process.wait()
    except BaseException:
        process.terminate()  # an interrupted evaluation leaves nothing behind
        process.wait()
        raise


def reason(log: Path) -> str:
    """Why a run failed, from what it printed last: lmms-eval's own word, else the last error, else the last line.

    A traceback of several processes counts as one.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = COLOUR.sub("", file.read().decode(errors="replace")).replace("\r", "\n")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if found := GIVEN_UP.search(line):
            return found[1] or line
    errors = [line for line in lines if ERROR.match(line) and "ChildFailedError" not in line]
    return (errors or lines or ["it printed nothing"])[-1]
