"""Every python block of the README runs, one after another, unless it is marked `no-run`."""

import re

import pytest
from source import ROOT

README = ROOT / "README.md"
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)``` *$", re.MULTILINE | re.DOTALL)


def python_blocks(text):
    """`(line, options, code)` of all blocks whose info string begins with `python`."""
    found = []
    for block in FENCE.finditer(text):
        language, *options = block["info"].replace(",", " ").split() or [""]
        if language == "python":
            indent = len(block["indent"])
            code = "".join(line[indent:] if line.strip() else line for line in block["body"].splitlines(True))
            found.append((text.count("\n", 0, block.start()) + 2, options, code))
    return found


def readme_blocks():
    return python_blocks(README.read_text()) if README.is_file() else []


def test_the_reader_finds_blocks():
    text = "a\n```python\nx = 1\n```\n```bash\nls\n```\n"
    text += "- b\n  ```python no-run\n  if x:\n      y\n  ```\n```python\nz\n```\n"
    assert python_blocks(text) == [
        (3, [], "x = 1\n"),
        (10, ["no-run"], "if x:\n    y\n"),
        (14, [], "z\n"),
    ]
    assert python_blocks("") == python_blocks("no code") == []


def test_every_block_parses():
    for line, _, code in readme_blocks():
        compile("\n" * (line - 1) + code, str(README), "exec")


def test_blocks_run(tmp_path, monkeypatch):
    blocks = [(line, code) for line, options, code in readme_blocks() if "no-run" not in options]
    if not blocks:
        pytest.skip("the README has no python to run")
    from seeless import registry

    registry._scan()
    known = dict(registry._strategies)
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "readme"}
    try:
        for line, code in blocks:
            exec(compile("\n" * (line - 1) + code, str(README), "exec"), space)  # errors show the README's own lines
    finally:
        registry._strategies.clear()
        registry._strategies.update(known)
