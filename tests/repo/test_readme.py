"""Every python block of the README and of docs/ runs, page by page, one after another, unless it is marked `no-run`."""

import re
import sys
from types import ModuleType

import pytest
from source import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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


def test_the_reader_finds_blocks():
    text = "a\n```python\nx = 1\n```\n```bash\nls\n```\n"
    text += "- b\n  ```python no-run\n  if x:\n      y\n  ```\n```python\nz\n```\n"
    assert python_blocks(text) == [
        (3, [], "x = 1\n"),
        (10, ["no-run"], "if x:\n    y\n"),
        (14, [], "z\n"),
    ]
    assert python_blocks("") == python_blocks("no code") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_parses(page):
    for line, _, code in python_blocks(page.read_text()):
        compile("\n" * (line - 1) + code, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_run(page, tmp_path, monkeypatch):
    from seeless import registry
    from seeless.vtr import VTR_REGISTRY

    registry._scan()
    known, guests = dict(registry._strategies), dict(VTR_REGISTRY)
    monkeypatch.chdir(tmp_path)
    space = ModuleType("page")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "page", space)
    try:
        for line, options, code in python_blocks(page.read_text()):
            if "no-run" not in options:  # errors show the page's own lines
                exec(compile("\n" * (line - 1) + code, str(page), "exec"), vars(space))
    finally:
        for names, before in ((registry._strategies, known), (VTR_REGISTRY, guests)):
            names.clear()
            names.update(before)
