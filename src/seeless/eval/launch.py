"""Run a command, show what it prints as it prints it, keep it in a file, and find the reason when it fails."""

import codecs
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from seeless.outputs import writing

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE = 40.0  # seconds; torchrun gives its workers 30
PIECE = 1 << 14
TAIL = 1 << 16
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
GIVEN_UP = re.compile(r"Error during evaluation: (.*?)(?:\. Please set `--verbosity|$)")
ERROR = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit|Unsupported\w*|Unknown\w*)\b:? ?.*")


def launch(command: list[str], environment: dict[str, str], log: Path) -> int:
    """Run `command` to its end; its output goes to stderr and to `log`.

    What asks this process to end (Ctrl-C, SIGTERM, SIGHUP) is passed on to the command and all that it started, and
    what is left of them after a while is killed; so nothing goes on alone.

    Args:
        environment: added to this process' own.

    Returns:
        Its exit code.

    Raises:
        UnwritableFile: the log cannot be written, or no longer.
        SystemExit: this process was asked to end, and the command has ended.
    """
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    with writing(log):
        file = log.open("wb", buffering=0)
    with file, _PassedOn() as passed_on:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            start_new_session=True,  # a group of its own, and Ctrl-C reaches it through here alone
        )
        assert process.stdout is not None
        passed_on.to(process)
        try:
            while piece := process.stdout.read(PIECE):
                left = piece
                while left:  # a disk that fills up takes a part first
                    with writing(log):
                        left = left[file.write(left) :]
                sys.stderr.write(decode(piece))
                sys.stderr.flush()
            return process.wait()
        except BaseException:
            passed_on.send(signal.SIGTERM)
            process.stdout.close()
            process.wait()
            raise


class _PassedOn:
    """Signals that ask this process to end, passed on to the group of a process while this is entered.

    Those that are ignored stay ignored (`nohup`), and only the main thread can be asked.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._kill: threading.Timer | None = None
        self._asked: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_PassedOn":
        if threading.current_thread() is threading.main_thread():
            for name in ENDING:
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._on_signal)
        return self

    def to(self, process: subprocess.Popen) -> None:
        """Whom to pass them on to; one that has come already goes there at once."""
        self._process = process
        if self._asked is not None:
            self.send(self._asked)

    def send(self, number: signal.Signals) -> None:
        """Send one to the group, and see to it that nothing of it is left in the end."""
        self._signal(number)
        if self._kill is None:
            self._kill = threading.Timer(PATIENCE, self._signal, [signal.SIGKILL])
            self._kill.daemon = True
            self._kill.start()

    def __exit__(self, *error: object) -> None:
        if self._kill is not None:
            self._kill.cancel()
            self._signal(signal.SIGKILL)  # the process has ended; others of its group may not have
        for number, before in self._before.items():
            signal.signal(number, before)
        if self._asked is not None:
            with contextlib.suppress(OSError):  # the terminal may be gone
                print(f"\nstopped by {self._asked.name}, and the evaluation with it", file=sys.stderr)
            raise SystemExit(128 + self._asked)

    def _on_signal(self, number: int, frame: Any) -> None:
        self._asked = signal.Signals(number)
        if self._process is not None:
            self.send(self._asked)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def reason(log: Path) -> str:
    """Why a run failed, from what it printed last: lmms-eval's own word, else the last error, else the last line.

    A traceback of several processes counts as one.
    """
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = COLOUR.sub("", file.read().decode(errors="replace")).replace("\r", "\n")
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    for line in reversed(lines):
        if found := GIVEN_UP.search(line):
            return found[1] or line
    errors = [line for line in lines if ERROR.match(line) and "ChildFailedError" not in line]
    return (errors or lines or ["it printed nothing"])[-1]
