"""What every method adds to a forward, counted: waits of the host, operations, hooks. No time is measured.

A GPU works while the host plans; it stands still whenever the host must have a value. So a prefill of fixed budgets may
wait twice more than the untouched model: once for what the plan needs, once for what is wrong with decisions.
"""

import tempfile
from contextlib import nullcontext
from functools import cache

import count_prefill
import pytest
import torch
from counting import Counting
from matrix import STRATEGIES
from tiny_clip import save_clip

import seeless as sl
from seeless.registry import strategy_class
from seeless.strategy import Stage
from tinies import RAGGED_VIDEO, TINIES, make_inputs

# Stages whose number of tokens depends on what the pictures show: one more each. Of what leaves the tower, the entry is
# one, and so is every tower layer before which tokens leave that no budget counts.
CONTENT = {"evs": 1, "flowcut": 1, "mustdrop": 6, "pixelprune": 2, "prunevid": 1}
# What is planned inside the tower: how the model packs tiles, or how large pictures are and where their windows end.
INSIDE = {"NeXT b4 ragged": 1, "Qwen b4 ragged": 3}
OWN = {"cdpruner": 2, "anchorprune": 2, "eadp": 4}  # waits of a model that the method itself runs, CLIP's text tower
PLAIN = ("uniform", "fastervlm", "fastv")
COLUMNS = ("b1", "b8 equal", "b8 ragged", "NeXT b4 ragged", "Qwen b4 ragged")
ENTRY = (
    *("divprune", "fastervlm", "holov", "pool", "random", "uniform", "vidcom2", "visionzip", "vispruner"),
    *("scope",),
)
_folder = tempfile.TemporaryDirectory()  # until the process ends


@cache
def cases():
    count_prefill.TEXT["num_hidden_layers"] = 8
    return count_prefill.cases()


@cache
def untouched(column):
    return count_prefill.count(cases()[column])


@cache
def added(name, column):
    """`{"prefill": numbers, "decode": numbers}` more than the untouched model; None where the pair cannot work."""
    case, without = cases()[column], untouched(column)  # while there is no handle
    clip = save_clip(_folder.name, count_prefill.TOWER["hidden_size"])
    try:
        with sl.apply(case.model, strategy_of(name, clip)):
            return count_prefill.more(count_prefill.count(case), without)
    except sl.SeelessError:
        return None


def strategy_of(name, clip):
    if name == "router":
        return sl.Router({2: sl.FastV(keep=64), 4: sl.PyramidDrop(keep=32, layer=4)})
    return count_prefill.strategy_of(name, clip)


def everywhere():
    return pytest.mark.parametrize("column", COLUMNS)


def prompts_in_turns():
    """Every method and every prompt; in the short plan ragged batches, and one of the other prompts in turns."""
    others = [column for column in COLUMNS if column != "b8 ragged"]
    return pytest.mark.parametrize(
        ("name", "column"),
        [
            pytest.param(
                *(name, column),
                marks=() if column in ("b8 ragged", others[number % len(others)]) else pytest.mark.full,
            )
            for number, name in enumerate(sorted(set(sl.available()) - {"tome"}))
            for column in COLUMNS
        ],
    )


@prompts_in_turns()
@torch.no_grad()
def test_a_prefill_waits_twice_more(name, column):
    if (found := added(name, column)) is None:
        pytest.skip("the pair cannot work, as the contracts say")
    prefill = found["prefill"]
    inside = INSIDE.get(column, 0) if strategy_class(name).stage is Stage.TOWER else 0
    assert prefill["waits"] <= 2 + CONTENT.get(name, 0) + OWN.get(name, 0) + inside, prefill["waits_at"]


@everywhere()
@pytest.mark.parametrize("name", PLAIN)
@torch.no_grad()
def test_few_operations_whatever_the_batch(name, column):
    found, alone = added(name, column), added(name, "b1")
    if column.startswith(("b1", "b8")):
        assert found["prefill"]["operations"] <= 120, found["prefill"]["operations_at"]
    if column == "b8 equal":
        assert found["prefill"]["operations"] <= alone["prefill"]["operations"] + 20


@pytest.mark.parametrize("column", ["b1", "b8 ragged", "NeXT b4 ragged"])
@pytest.mark.parametrize("name", [*ENTRY, "fastv", "priortr"])
@torch.no_grad()
def test_a_step_of_decoding(name, column):
    """No wait and, after an entry cut or without padding, no operation more than the untouched model's and no seam on a
    layer. Methods that renumber at several layers (PyramidDrop, SparseVLM) turn positions anew in each range."""
    found = added(name, column)["decode"]
    assert found["waits"] <= 0 and found["hooks"] <= 0
    assert found["operations"] <= (0 if name in ENTRY or column == "b1" else 40), found["operations_at"]


ABOUT_VIDEOS = {"dycoke": 0, "fastvid": 1, "flashvid": 1, "holitom": 1, "prunevid": 2}  # stages that find their count


@pytest.mark.parametrize("name", ABOUT_VIDEOS)
@torch.no_grad()
def test_videos_wait_for_their_count_alone(tiny, name):
    """Once for every stage whose number of tokens depends on them, however many videos there are, and of what size."""
    own = next(tiny for tiny in TINIES if str(tiny) == "qwen2_5_vl")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED_VIDEO)
    found = []
    for handle in (nullcontext, lambda: sl.apply(model, STRATEGIES[name])):
        with handle():
            model(**inputs)
            with Counting() as counted:
                model(**inputs)
        found.append(counted.waits)
    assert found[1] - found[0] <= 2 + ABOUT_VIDEOS[name], counted.where
