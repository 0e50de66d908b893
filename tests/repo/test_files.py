"""The state of the files themselves."""

import re

import pytest
from source import FILES, PACKAGE, ROOT, files_of, short, tracked, words


@pytest.mark.parametrize("path", FILES, ids=short)
def test_no_file_is_long(path):
    lines = len(path.read_text().splitlines())
    assert lines <= (160 if path.parent == PACKAGE / "strategies" else 400)


def test_no_file_is_a_drawer():
    drawers = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert [str(p) for p in [*FILES, *tracked()] if p.name in drawers] == []
    assert files_of("ops")


def test_no_tracked_text_names_a_folder_of_one_machine():
    homes = "|".join(("work", "root", "tmp", "home/[a-z]+", "Users/[A-Za-z]+"))
    pattern = re.compile(rf"(?<![\w./:~-])/({homes})/")
    found = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_nothing_invisible_in_source_files():
    """No tabs, no trailing blanks, no carriage returns, a newline at the end."""
    for path in [p for p in tracked() if p.suffix == ".py"]:
        text = path.read_text()
        assert "\t" not in text and "\r" not in text and "\u00a0" not in text, path
        assert not text or text.endswith("\n"), path
        assert not re.search(r"[ ]+$", text, re.MULTILINE), path


def test_files_a_repository_needs():
    for name in ("README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "src/seeless/py.typed"):
        assert (ROOT / name).is_file()


def test_lines_of_json_are_read_in_one_place():
    """`str.splitlines` ends lines at U+2028 and the like, too: for messages it will do, for data it will not."""
    split = {short(path) for path in FILES for _, text in words(path) if text in ("splitlines", "readlines")}
    assert split <= {"errors.py"}
