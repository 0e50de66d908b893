"""Every python block of the README and of docs/ runs, page by page, one after another, unless it is marked `no-run`."""

import re
import sys
from types import ModuleType

import pytest
from source import ROOT
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_parses(page):
    for line, _, code in python_blocks(page.read_text()):
        compile("\n" * (line - 1) + code, str(page), "exec")


class WithoutDevice(TorchFunctionMode):
    """Notes where functions of a page make tensors without saying on which device: on a GPU that fails."""

    def __init__(self, page):
        super().__init__()
        self.page, self.found = str(page), []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _device_constructors() and kwargs.get("device") is None:
            frame = sys._getframe(1)
            if frame.f_code.co_filename == self.page and frame.f_code.co_name != "<module>":
                self.found.append(f"line {frame.f_lineno}: torch.{func.__name__}")
        return func(*args, **kwargs)


def test_tensors_without_a_device_are_noted(tmp_path):
    page = tmp_path / "page.md"
    code = (
        "import torch\nx = torch.zeros(2)\ndef score(x):\n    y = torch.zeros_like(x) + torch.ones(2, device=x.device)"
    )
    code += "\n    return y + torch.arange(2)\nscore(x)\n"
    with WithoutDevice(page) as devices:
        exec(compile(code, str(page), "exec"), {})
    assert devices.found == ["line 5: torch.arange"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_run(page, tmp_path, monkeypatch):
    """As they stand; methods make their tensors beside those they have been given."""
    from seeless import registry
    from seeless.vtr import VTR_REGISTRY

    registry._scan()
    known, guests = dict(registry._strategies), dict(VTR_REGISTRY)
    monkeypatch.chdir(tmp_path)
    space = ModuleType("page")  # dataclasses look their module up
    monkeypatch.setitem(sys.modules, "page", space)
    try:
        with WithoutDevice(page) as devices:
            for line, options, code in python_blocks(page.read_text()):
                if "no-run" not in options:  # errors show the page's own lines
                    exec(compile("\n" * (line - 1) + code, str(page), "exec"), vars(space))
        assert devices.found == []
    finally:
        for names, before in ((registry._strategies, known), (VTR_REGISTRY, guests)):
            names.clear()
            names.update(before)
