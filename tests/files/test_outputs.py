"""Files to write to: found unusable at once, held by one process, replaced whole."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from seeless.outputs import FileInUse, UnwritableFile, check_file, check_folder, claimed, claimed_folder, replace_file

HOLDER = """
import sys, time
from pathlib import Path
from seeless.outputs import claimed, claimed_folder
with (claimed if sys.argv[1] == "file" else claimed_folder)(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(600)
"""


def bad_targets(folder):
    """Where nothing can be written, whoever tries."""
    (folder / "file").touch()
    return [folder / "file" / "x", folder / ("x" * 300), folder / "nul\0", folder / ("y" * 300) / "x"]


@pytest.mark.parametrize("number", range(4))
def test_what_cannot_be_written_is_found_at_once(tmp_path, number):
    target = bad_targets(tmp_path)[number]
    for check in (check_file, check_folder):
        with pytest.raises(UnwritableFile, match="cannot write"):
            check(target)


def test_files_and_folders_are_not_each_other(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableFile, match="no folder"):
        check_folder(tmp_path / "file")
    for target in (tmp_path, os.devnull, "/dev/full"):
        with pytest.raises(UnwritableFile, match="it is no file"):
            check_file(type(tmp_path)(target))


def test_a_check_leaves_no_file_and_takes_none_away(tmp_path):
    check_file(tmp_path / "new" / "x.jsonl")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "old").touch()
    (tmp_path / "full").write_text("1")
    for name in ("old", "full"):
        check_file(tmp_path / name)
        assert (tmp_path / name).exists()


@pytest.mark.parametrize(("kind", "claim"), [("file", claimed), ("folder", claimed_folder)])
def test_one_process_at_a_time(tmp_path, kind, claim):
    target = tmp_path / "x"
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(HOLDER), kind, target], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(FileInUse, match=f"another process writes to {target}"), claim(target):
        pass
    holder.send_signal(signal.SIGKILL)  # leaves nothing that would have to be cleaned up
    holder.wait()
    holder.stdout.close()
    with claim(target):
        pass
    with claim(target):
        pass


def _replace_within(limit, file):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        replace_file(file, b"n" * 1000)
    except UnwritableFile as error:
        raise SystemExit(3) from error


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "x.json"
    replace_file(file, b"old")
    started = multiprocessing.get_context("fork").Process(target=_replace_within, args=(500, file))
    started.start()
    started.join()
    assert started.exitcode == 3 and file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"
