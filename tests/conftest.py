"""Shared fixtures: one tiny model per variant and backend, built once."""

import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Near-ties on random weights must fall alike on every processor: wider vector kernels round otherwise.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
import transformers

import seeless
from seeless.vtr import VTR_REGISTRY

seeless.available()  # tests that put the registry back as it was must find it full
transformers.utils.logging.disable_progress_bar()
collect_ignore = ["conftest.py", "cli/conftest.py"]  # nothing to collect, and two modules of one name


@cache
def _built(variant, backend: str):
    return variant.build("eager" if backend == "untouched" else backend)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="module")
def _no_guests_of_others(request):
    """Outside tests/vtr, whose modules register guests as they are imported, only built-in ones are known."""
    known = dict(VTR_REGISTRY)
    if request.path.parent.name != "vtr":
        for name, cls in known.items():
            if not cls.__module__.startswith("seeless."):
                del VTR_REGISTRY[name]
    yield
    VTR_REGISTRY.clear()
    VTR_REGISTRY.update(known)


@pytest.fixture
def tiny():
    """`tiny(variant, backend)`: the shared model; tests must leave it as it was. "untouched" never carries a handle."""
    return _built
