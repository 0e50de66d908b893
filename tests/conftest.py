"""Shared fixtures: one tiny model per variant and backend, built once."""

import gc
import logging
import os
import sys
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what tests start, too: as many processes as cores run side by side
# Near-ties on random weights must fall alike on every processor: wider vector kernels round otherwise.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")
# The processes that run the tests keep the memory of tensors that are gone, instead of asking for it a million times.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
sys.path.insert(0, str(Path(__file__).parent))

import hypothesis
import pytest
import torch
import transformers
from sparse import Turns

import seeless
from seeless import families
from seeless.vtr import VTR_REGISTRY

seeless.available()  # tests that put the registry back as it was must find it full
transformers.utils.logging.disable_progress_bar()
slow = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}  # whatever the load
hypothesis.settings.register_profile("same examples", derandomize=True, database=None, **slow)
hypothesis.settings.register_profile("other examples", **slow)


class _Deprecated(logging.Handler):
    """What transformers deprecates it says in its log, where no filter of warnings sees it: here it is an error."""

    def emit(self, record):
        message = record.getMessage()
        if "deprecated" in message and "({'guidance_scale'})" not in message:  # that is Janus' own `generate`
            raise DeprecationWarning(message)


logging.getLogger("transformers").addHandler(_Deprecated())
collect_ignore = ["conftest.py", "cli/conftest.py", "contracts/conftest.py"]  # nothing in them, and of one name


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="every combination of the contracts, not the short plan alone")


def pytest_configure(config):
    hypothesis.settings.load_profile("other examples" if config.getoption("--all") else "same examples")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--all"):
        return
    turns = Turns()
    short = [item for item in items if not item.get_closest_marker("full") and in_turn(turns, item)]
    kept = set(map(id, short))
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = short


def pytest_collection_finish():
    """What was imported and collected stays: collecting garbage need not look at it again (a tenth of all time)."""
    gc.collect()
    gc.freeze()


def in_turn(turns, item):
    """Whether a test is in the short plan, as far as families are concerned that have it by turns."""
    given = getattr(item, "callspec", None)
    return given is None or turns.has(item.nodeid.partition("[")[0], given.params.values())


@pytest.fixture
def whole(request):
    """Whether all combinations are asked for."""
    return request.config.getoption("--all")


@cache
def _built(variant, backend: str):
    return variant.build("eager" if backend == "untouched" else backend)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _heard():
    """Loading a model on the command line quiets transformers, whose log says what is deprecated."""
    transformers.utils.logging.set_verbosity_warning()


@pytest.fixture(autouse=True)
def _no_families_of_others():
    """What a test registers, a page of the documentation for one, nobody else sees."""
    known = dict(families._registered)
    yield
    families._registered.clear()
    families._registered.update(known)


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
