"""What asks a command line to end reaches all that it started, and nothing goes on alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from heeding import heed

from seeless.eval import launch as launch_module
from seeless.eval.launch import launch
from seeless.outputs import UnwritableFile

# A command that starts another process, and says who they are; both end when asked to, or ignore it.
FAMILY = """
import os, signal, subprocess, sys, time
exec(sys.argv[1])  # what is ignored stays ignored in those it starts
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[2], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""
IGNORE = "for number in (2, 15, 1): signal.signal(number, signal.SIG_IGN)"
PARENT = """
import sys
from pathlib import Path
from seeless.eval import launch as module
module.PATIENCE = 2.0
module.launch([sys.executable, *sys.argv[2:]], {}, Path(sys.argv[1]))
print("went on")
"""


def wait_for(condition, seconds=60):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not condition():
        time.sleep(0.02)
    return condition()


def runs(pid):
    """Whether a process is there and not only remembered (a zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def started(tmp_path, manners="pass", *prefix):
    """A command line that runs the family, and the family's ids."""
    pids = tmp_path / "pids"
    arguments = [tmp_path / "log", "-c", FAMILY, manners, pids]
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", PARENT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,
    )
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    return process, [int(pid) for pid in pids.read_text().split()]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("manners", ["pass", IGNORE], ids=["obedient", "deaf"])
def test_a_signal_ends_the_whole_family(tmp_path, name, manners):
    process, family = started(tmp_path, manners)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert wait_for(lambda: not any(map(runs, family))) and "went on" not in out  # dying takes a busy machine a moment
    assert f"stopped by {name}" in err
    assert process.returncode == 128 + getattr(signal, name)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks into /proc")
def test_under_nohup_a_hangup_is_nothing(tmp_path):
    process, family = started(tmp_path, "pass", "nohup")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert all(map(runs, family)) and process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert wait_for(lambda: not any(map(runs, family)))


def test_signals_are_left_as_they_were(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert launch([sys.executable, "-c", "pass"], {}, tmp_path / "log") == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_log_that_fills_the_disk_ends_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(launch_module, "PATIENCE", 2.0)
    (tmp_path / "log").symlink_to("/dev/full")
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); print(1); time.sleep(600)"
    with pytest.raises(UnwritableFile, match="log: No space left"):
        launch([sys.executable, "-u", "-c", script], {}, tmp_path / "log")
    assert not runs(int((tmp_path / "pid").read_text()))
