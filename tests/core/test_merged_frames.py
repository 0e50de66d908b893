"""Videos whose frames become fewer behind the tower, and videos of which a processor has left tokens out."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

import seeless as sl
from seeless.checking.family import Check, build
from seeless.checking.prompts import ROWS, Videos, make_prompts
from seeless.core.host import TESTED, version
from seeless.families import family_of
from tinies import TINIES, VIDEO, make_inputs

GRIDS = [(4, 8, 8), (2, 6, 10), (4, 4, 6)]
AT_ONCE = {"kimi_k25": 4, "ernie4_5_vl_moe": 2}  # frames of which one is made
PATCH = 4


def of(name):
    found = [tiny for tiny in TINIES if tiny.name == name]
    if not found or (name == "kimi_k25" and not version().startswith(f"{TESTED[1]}.")):
        pytest.skip(f"this release of transformers has no {name}, or none that takes videos")
    return found[0]


def video_inputs(own, model):
    """One row with three videos, one behind the other."""
    pixels, ids = [], [5, 6, 7]
    for seed, (t, h, w) in enumerate(GRIDS):
        shape = (t * h * w, 3, PATCH, PATCH) if own.name == "kimi_k25" else (t * h * w, 3 * PATCH**2)
        pixels.append(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))
        ids += [VIDEO] * (-(-t // AT_ONCE[own.name]) * h * w // 4) + [8, 9]
    inputs = make_inputs(model, own, [[3]])
    inputs |= {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
    inputs |= {"pixel_values_videos": torch.cat(pixels), "video_grid_thw": torch.tensor(GRIDS)}
    for name in own.new_token_types:
        inputs[name] = 2 * (inputs["input_ids"] == VIDEO).long()
    return inputs


def frames_seen(model, inputs):
    """What the tower shows of each frame that came out, in their order."""
    seen = {}

    class Spy(sl.EntryStrategy):
        def select(self, ctx):
            for unit, attention in zip(ctx.sources.group.units, ctx.vision_attention(), strict=True):
                seen[int(unit.tokens[0])] = attention
            return sl.Keep(torch.ones(ctx.index.shape, dtype=torch.bool))

    with sl.apply(model, Spy(keep=10**6, scope="crop"), self_check=False):
        model(**inputs)
    return [seen[place] for place in sorted(seen)]


@pytest.mark.parametrize("name", AT_ONCE)
@torch.no_grad()
def test_the_towers_attention_is_the_mean_over_frames(name, monkeypatch):
    """Against the weights that the stock model's own eager attention computes in its last tower layer."""
    own = of(name)
    model, together = own.build("eager"), AT_ONCE[name]
    home, maps = sys.modules[type(model.model.vision_tower).__module__], []
    stock = home.eager_attention_forward

    def watched(module, *args, **kwargs):
        output, weights = stock(module, *args, **kwargs)
        if not module.is_causal:
            maps.append(weights[0].double())
        return output, weights

    monkeypatch.setattr(home, "eager_attention_forward", watched)
    found = frames_seen(model, video_inputs(own, model))
    pieces = maps[-len(maps) // 3 :]  # of the last of three layers
    received = torch.cat([piece.mean(1) for piece in pieces], 1)  # [heads, patches of all frames]
    first = start = 0
    for t, h, w in GRIDS:
        for _ in range(-(-t // together)):
            count = min(t, together)
            frames = received[:, start : start + count * h * w].unflatten(1, (count, -1)).mean(1)
            if name == "kimi_k25":  # patches in the order of the picture
                frames = frames.view(-1, h // 2, 2, w // 2, 2).transpose(2, 3)
            want = frames.reshape(len(frames), h * w // 4, 4).mean(-1)
            assert (found[first] - want).abs().max() < 1e-6
            first, start = first + 1, start + count * h * w
    assert first == len(found)


@pytest.mark.parametrize("name", AT_ONCE)
@torch.no_grad()
def test_operations_and_what_cannot_merge(name):
    own = of(name)
    model = own.build("eager")
    inputs = video_inputs(own, model)
    with sl.apply(model, sl.Uniform(keep=4, scope="frame")) as run:
        model(**inputs)
    frames = sum(-(-t // AT_ONCE[name]) for t, _, _ in GRIDS)
    assert run.report.n_after == [4 * frames]
    size = run.report.facts.size
    patches = [t * h * w for t, h, w in GRIDS]
    pairs = [n * n if name == "kimi_k25" else n * n // t for n, (t, _, _) in zip(patches, GRIDS, strict=True)]
    layer = [2 * n * size.tower_weights + 4 * p * size.tower_hidden for n, p in zip(patches, pairs, strict=True)]
    embedded = 2 * sum(patches) * size.patch_inputs * size.tower_hidden
    assert run.report.flops_before.tower == size.tower_layers * sum(layer) + embedded
    with sl.apply(model, sl.ToMe(keep=0.5)), pytest.raises(sl.UnsupportedModel, match="makes one of several frames"):
        model(**inputs)


class LeftOut(Videos):
    """Videos of which two thirds of the tokens stay."""

    def stays(self, number):
        return torch.rand(super().tokens(number), generator=torch.Generator().manual_seed(number)) > 1 / 3

    def tokens(self, number):
        return int(self.stays(number).sum())


def test_tokens_that_a_processor_left_out():
    own = of("video_llama_3")
    family = family_of("video_llama_3")
    check = Check(build(own.config(), own.model_class, family.mrope), family)
    videos = LeftOut(check.model, check.base, family)
    batch = make_prompts(check.model, check.base, family, videos, ROWS)
    stays = torch.cat([videos.stays(number) for row in ROWS for number in row[1::2]])
    assert not stays.all()
    batch.inputs["video_compression_mask"] = stays
    for method, options in (("fastervlm", {"keep": 5}), ("divprune", {"keep": 0.4}), ("pyramiddrop", {})):
        with torch.no_grad():
            assert check._equals_the_oracle(sl.get(method, positions="keep", **options), batch) == ""
