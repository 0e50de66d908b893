"""Files in the shapes PriorTR's framework has, as plug-ins: imports, whole maps, priors, the tower, merging."""

import textwrap
import warnings

import pytest
import torch
from matrix import PLACEHOLDERS

import seeless as sl
from seeless import models
from seeless.named.errors import UnusablePlugin
from seeless.named.plugins import load_plugins
from seeless.vtr import VTR_REGISTRY, FastVStrategy, VTRConfig, vispruner, wholemaps
from seeless.vtr.missing import MissingEntry
from seeless.vtr.token_merge import merge_tokens
from tinies import TINIES, make_inputs

FOUR = ("llava-llama-mha", "qwen2_vl", "internvl", "video_llava")
OWNS = [own for own in TINIES if own.name in FOUR]
ROW = [5, "image:0", 9]

HEADER = """
import torch
from .base import PruningStrategy, VTRStrategy
from .registry import register_strategy
from ..config import VTRConfig
"""
FILES = {
    "entropy": """
from .heads import weigh

@register_strategy("entropy")
class EntropyStrategy(PruningStrategy):
    '''Heads weighed by how sure they are; everything on the whole map.'''
    def compute_scores(self, attention, image_token_range, config, **ctx):
        if not isinstance(attention, torch.Tensor):
            raise TypeError("attention must be a tensor")
        s, e = image_token_range
        assert attention.dim() == 4 and attention.size(-1) == attention.shape[-2]
        weights = weigh(attention)
        by_row = torch.einsum("bhqk,bh->bqk", attention, weights)
        stacked = torch.stack([by_row, attention.permute(0, 2, 3, 1).mean(-1)]).sum(0)
        return (stacked.transpose(1, 2).reshape(1, -1).softmax(-1).view(stacked.shape)[0, s:e, -1]).float()
""",
    "two_forwards": """
@register_strategy("two_forwards")
class TwoForwards(PruningStrategy):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        s, e = image_token_range
        posterior = attention[:, :, -1, s:e].mean(dim=1).squeeze(0)
        prior = ctx.get("prior_attention")
        if prior is None:
            raise ValueError("no prior_attention in the context")
        if not isinstance(prior, torch.Tensor) or prior.shape != posterior.shape:
            raise ValueError("prior_attention has another shape")
        return posterior / posterior.sum() - prior / prior.sum()

@register_strategy("two_forwards_by_layer")
class ByLayer(TwoForwards):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        priors = ctx["prior_attentions"]
        ctx["prior_attention"] = priors.pop(min(priors.keys()))
        assert not priors
        return super().compute_scores(attention, image_token_range, config, **ctx)
""",
    "vispruner": """
@register_strategy("vispruner")
class VisPruner(VTRStrategy):
    def compute_scores(self, attention, image_token_range, config, layer_idx=0, vit_importance=None,
                       vit_merged_features=None, **context):
        if vit_importance is None or vit_merged_features is None:
            raise ValueError("vit_importance is required")
        assert attention is None and len(vit_importance) == len(vit_merged_features)
        return vit_importance - 0.001 * vit_merged_features.float().norm(dim=-1)
""",
    "both": """
@register_strategy("both")
class Both(VTRStrategy):
    '''What the tower and the decoder agree on.'''
    def compute_scores(self, attention, image_token_range, config, layer_idx=0, **context):
        s, e = image_token_range
        seen = attention[:, :, -1, s:e].mean(dim=1).squeeze(0)
        return seen / seen.sum() * context["vit_importance"]
""",
    "merging_file": """
from ..model.token_merge import merge_tokens

@register_strategy("merging_file")
class Merging(VTRStrategy):
    def prepare(self, hidden_states, config, context):
        s, e = context["image_token_range"]
        context["asked"] = hidden_states[:, e:].mean(dim=1)
    def compute_scores(self, attention, image_token_range, config, layer_idx=0, **context):
        s, e = image_token_range
        return attention[0, :, e:, s:e].mean(dim=(0, 1))
    def post_prune(self, hidden_states, pruned_hidden_states, keep_indices, image_token_range, config, layer_idx,
                   **context):
        if not config.token_merge:
            return pruned_hidden_states
        s, e = image_token_range
        gone = torch.ones(len(keep_indices) + len(context["pruned_token_scores"]), dtype=torch.bool)
        gone[keep_indices] = False
        new = merge_tokens(hidden_states[0, s:][: len(gone)][gone], context["pruned_token_scores"])
        return torch.cat([pruned_hidden_states[:, :e], new[None], pruned_hidden_states[:, e:]], dim=1)
""",
    "routers": """
from .priortr import PriorTRStrategy
from .fastv import FastVStrategy
from .config import RouterConfig

@register_strategy("off_by_one")
class OffByOne(PruningStrategy):
    config_class = RouterConfig
    def __init__(self):
        self.by_layer = {2: PriorTRStrategy(), 4: FastVStrategy()}
    def compute_scores(self, attention, image_token_range, config, **ctx):
        return self.by_layer[ctx["layer_idx"]].compute_scores(attention, image_token_range, config, **ctx)

@register_strategy("needs_reference")
class NeedsReference(PruningStrategy):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        return ctx["z_ref"].norm(dim=-1)

@register_strategy("own_mistake")
class OwnMistake(PruningStrategy):
    def compute_scores(self, attention, image_token_range, config, **ctx):
        return {"a": 1}[7]
""",
}
BESIDE = {
    "heads": "def weigh(attention):\n    return -(attention * (attention + 1e-9).log()).sum(-1).mean(-1)\n",
    "config": "from dataclasses import dataclass\nfrom ..config import VTRConfig\n\n@dataclass\n"
    "class RouterConfig(VTRConfig):\n    sharpness: float = 2.0\n",
    "base": "raise RuntimeError('the copy of the framework beside the plug-in is not to be run')\n",
    "registry": "raise RuntimeError('the copy of the framework beside the plug-in is not to be run')\n",
}


@pytest.fixture
def folder(tmp_path):
    """A folder as in PriorTR's copies: strategies, and what they import from beside them."""
    before = dict(VTR_REGISTRY)
    for name, code in {**{n: HEADER + textwrap.dedent(c) for n, c in FILES.items()}, **BESIDE}.items():
        (tmp_path / f"{name}.py").write_text(code)
    yield tmp_path
    VTR_REGISTRY.clear()
    VTR_REGISTRY.update(before)


def load(folder, *names):
    load_plugins([folder / f"{name}.py" for name in names])


def prompt(own, model):
    """Inputs, and the range of the visual tokens."""
    inputs = make_inputs(model, own, [ROW])
    visual = torch.isin(inputs["input_ids"][0], torch.tensor(PLACEHOLDERS)).nonzero()[:, 0]
    return inputs, int(visual[0]), int(visual[-1]) + 1


def maps_of(model, inputs):
    """The stock model's own eager maps, layer by layer."""
    model.set_attn_implementation("eager")
    return model(**inputs, output_attentions=True, use_cache=False).attentions


def cut_off(inputs, length):
    """The prompt up to a place."""
    seq = inputs["input_ids"].shape[1]
    return {
        name: value[:, :length] if value.ndim == 2 and value.shape[1] == seq else value
        for name, value in inputs.items()
    }


def best(scores, count):
    return scores.double().argsort(descending=True, stable=True)[:count].sort().values.tolist()


@pytest.mark.parametrize("own", OWNS, ids=str)
@torch.no_grad()
def test_a_file_that_works_on_the_whole_map(tiny, folder, own):
    load(folder, "entropy")
    model, (inputs, start, end) = tiny(own, "sdpa"), prompt(own, tiny(own, "untouched"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with sl.apply(model, VTRConfig(strategy="entropy", prune_layer=[2, 4], keep_tokens=[6, 4])) as run:
            model(**inputs)
            model(**inputs)
    told = [str(each.message) for each in said if "needs all rows" in str(each.message)]
    seq = inputs["input_ids"].shape[1]
    assert len(told) == 1 and told[0].startswith("EntropyStrategy: ") and f"x {seq} x {seq} numbers (" in told[0]
    dense = maps_of(tiny(own, "untouched"), inputs)[1].double()
    entropy = -(dense * (dense + 1e-9).log()).sum(-1).mean(-1)
    whole = (dense * entropy[..., None, None]).sum(1) + dense.mean(1)
    assert run.report.stages[0].kept[0].tolist() == best(whole[0, -1, start:end], 6)


@pytest.mark.parametrize("name", ["two_forwards", "two_forwards_by_layer"])
@pytest.mark.parametrize("own", OWNS, ids=str)
@torch.no_grad()
def test_a_file_with_a_prior_from_a_second_forward(tiny, folder, own, name):
    """The prior is what a real second forward of the stock model gives, on the prompt cut off after the image."""
    load(folder, "two_forwards")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs, start, end = prompt(own, untouched)
    with sl.apply(model, VTRConfig(strategy=name, prune_layer=3, keep_tokens=7)) as run:
        model(**inputs)
    null = end + (own.name == "internvl")
    second = maps_of(untouched, cut_off(inputs, null + 1))
    layer = 3 if own.name == "video_llava" else 2
    prior = second[layer][0, :, -1, start:end].mean(0)
    posterior = maps_of(untouched, inputs)[2][0, :, -1, start:end].mean(0)
    want = posterior / posterior.sum() - prior / prior.sum()
    stage = run.report.stages[0]
    assert (stage.scores[0] - want).abs().max() < 1e-5 and stage.kept[0].tolist() == best(want, 7)


@torch.no_grad()
def test_where_there_is_no_prior(tiny, folder):
    """The prompt ends in the image, sees itself as a whole, or the prior is to come from another prompt."""
    load(folder, "two_forwards")
    for name, row, options in (
        ("llava-llama-mha", [5, "image:0"], {}),
        ("paligemma", ROW, {}),
        ("llava-llama-mha", ROW, {"prior_mode": "template"}),
    ):
        own = next(own for own in TINIES if own.name.startswith(name))
        model = tiny(own, "sdpa")
        for strategy, error in (("two_forwards", ValueError), ("two_forwards_by_layer", MissingEntry)):
            config = VTRConfig(strategy=strategy, prune_layer=3, keep_tokens=7, **options)
            with sl.apply(model, config), pytest.raises(error, match="prior_attention"):
                model(**make_inputs(model, own, [row]))


@torch.no_grad()
def test_files_that_read_the_tower(tiny, folder):
    """One of the name the framework knows acts before the decoder, one of another name at its layer."""
    own = next(own for own in TINIES if own.name == "llava-llama-mha")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs, start, end = prompt(own, untouched)
    pixels = inputs["pixel_values"]
    tower = untouched.model.vision_tower
    tower.set_attn_implementation("eager")
    at = untouched.config.vision_feature_layer
    importance = tower(pixels, output_attentions=True).attentions[at][0, :, 0, 1:].mean(0)
    (features,) = untouched.get_image_features(pixels, return_dict=True).pooler_output
    load(folder, "vispruner", "both")
    with sl.apply(model, VTRConfig(strategy="vispruner", keep_tokens=5)) as run:
        model(**inputs)
    stage = run.report.stages[0]
    assert stage.layer == 0 and stage.kept[0].tolist() == best(importance - 0.001 * features.norm(dim=-1), 5)
    with sl.apply(model, VTRConfig(strategy="both", prune_layer=3, keep_tokens=5)) as run:
        model(**inputs)
    seen = maps_of(untouched, inputs)[2][0, :, -1, start:end].mean(0)
    assert run.report.stages[0].layer == 3
    assert run.report.stages[0].kept[0].tolist() == best(seen / seen.sum() * importance, 5)


def test_the_built_in_vispruner_is_unchanged():
    assert VTR_REGISTRY["vispruner"] is vispruner.VisPrunerStrategy


@torch.no_grad()
def test_a_file_that_merges_meets_its_budget(tiny, folder):
    """With a ratio, kept and merged tokens together; with a number of tokens the merged ones come on top."""
    load(folder, "merging_file")
    own = next(own for own in TINIES if own.name == "qwen2_vl")
    model = tiny(own, "sdpa")
    inputs, start, end = prompt(own, model)
    visual = end - start
    for options, after in (
        ({"keep_ratio": 0.5}, visual // 2),
        ({"keep_ratio": 0.5, "token_merge": True}, visual // 2),
        ({"keep_tokens": 4}, 4),
        ({"keep_tokens": 4, "token_merge": True}, 4 + 1),
    ):
        with sl.apply(model, VTRConfig(strategy="merging_file", prune_layer=3, **options)) as run:
            model(**inputs)
        assert run.report.stages[0].n_after == [after], options
        merged = after - len(run.report.stages[0].kept[0])
        assert merged == (1 if "token_merge" in options else 0)


def test_merged_tokens_against_a_slow_version():
    """SparseVLM's recycling, one token at a time in double."""
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        states = torch.randn(60, 5, generator=generator)
        scores = torch.rand(60, generator=generator)
        count, clusters = int(0.3 * 60) + 1, (int(0.3 * 60) + 1) // 10 + 1
        order = sorted(range(60), key=lambda i: -float(scores[i]))[:count]
        x = states[order].double()
        torch.manual_seed(seed)
        noise = torch.rand(count)
        far = [[float((a - b).pow(2).sum().sqrt()) / 5**0.5 for b in x] for a in x]
        density = [
            float(torch.tensor([d**2 for d in sorted(row)[:clusters]]).double().mean().neg().exp()) for row in far
        ]
        density = [d + 1e-6 * float(n) for d, n in zip(density, noise, strict=True)]
        largest = max(map(max, far))
        delta = [
            min([far[i][j] for j in range(count) if density[j] > density[i]], default=largest) for i in range(count)
        ]
        centres = sorted(range(count), key=lambda i: -density[i] * delta[i])[:clusters]
        groups = [[] for _ in centres]
        for i in range(count):
            near = centres.index(i) if i in centres else min(range(clusters), key=lambda c: far[centres[c]][i])
            groups[near].append(i)
        want = torch.stack([x[group].sum(0) / (len(group) + 1e-6) for group in groups])
        torch.manual_seed(seed)
        assert (merge_tokens(states, scores).double() - want).abs().max() < 1e-5


@torch.no_grad()
def test_keys_that_are_not_there_are_explained(tiny, folder):
    load(folder, "routers")
    own = next(own for own in TINIES if own.name == "llava-llama-mha")
    model = tiny(own, "sdpa")
    inputs, _, _ = prompt(own, model)

    def said(strategy, error, **options):
        with sl.apply(model, VTRConfig(strategy=strategy, **options)), pytest.raises(error) as found:
            model(**inputs)
        return str(found.value)

    text = said("off_by_one", MissingEntry, prune_layer=[2, 4], keep_ratio=0.5)
    assert text.startswith("OffByOne.compute_scores: it has nothing for 1: layer_idx is the layer whose attention")
    assert "K - 1" in text and "prune_layer=2 asks for 1" in text
    with sl.apply(model, VTRConfig(strategy="off_by_one", prune_layer=[3, 5], keep_ratio=0.5)) as run:
        model(**inputs)
    assert [stage.n_after for stage in run.report.stages] == [[8], [4]]
    text = said("needs_reference", MissingEntry, prune_layer=2, keep_ratio=0.5)
    assert "no 'z_ref' before layer 2" in text and "ref_layers" in text and "hidden_states" in text
    with sl.apply(model, VTRConfig(strategy="needs_reference", prune_layer=2, keep_ratio=0.5, ref_layers=[0])):
        model(**inputs)
    assert said("own_mistake", KeyError, prune_layer=2, keep_ratio=0.5) == "7"


def test_a_file_beside_may_add_to_the_framework_s(folder):
    load(folder, "routers")
    config = VTR_REGISTRY["off_by_one"].config_class(strategy="off_by_one", sharpness=3.0)
    assert isinstance(config, VTRConfig) and config.to_dict()["sharpness"] == 3.0


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("from .nowhere import x", ["no nowhere.py beside it", "base, registry, config", "token_merge"]),
        ("from .guest import Guest", ["no guest.py beside it"]),
        ("from ..config import Nothing", ["seeless.vtr.config has no Nothing", "it has VTRConfig"]),
        ("from ..model.token_merge import other", ["seeless.vtr.token_merge has no other", "merge_tokens"]),
        ("from .pack.inner import x", ["no pack", "beside it"]),
        ("from ....far import x", ["beyond top-level package"]),
        ("import nonexistent_thing", ["nonexistent_thing"]),
    ],
)
def test_what_is_nowhere_is_named(folder, line, parts):
    (folder / "bad.py").write_text(line + "\n")
    with pytest.raises(UnusablePlugin) as found:
        load(folder, "bad")
    for part in parts:
        assert part in str(found.value)


def test_a_copy_of_the_framework_as_it_is_laid_out(tmp_path, folder):
    """Its own base, registry and configuration are not run; its helpers are, from where they are."""
    files = {
        "strategy/base.py": "raise RuntimeError",
        "strategy/registry.py": "raise RuntimeError",
        "config.py": "raise RuntimeError",
        "model/__init__.py": "raise RuntimeError",
        "model/token_merge.py": "from ..config import VTRConfig\nfrom ..shapes import N\ndef pool(x): return x[:N]",
        "shapes.py": "N = 3",
        "strategy/pooled.py": HEADER
        + "from ..model.token_merge import pool\nfrom ..strategy.fastv import FastVStrategy\n"
        "@register_strategy('pooled')\nclass P(FastVStrategy):\n    pool = staticmethod(pool)\n",
    }
    for name, code in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_text(code)
    load(tmp_path / "copy" / "strategy", "pooled")
    assert VTR_REGISTRY["pooled"].pool(list(range(5))) == [0, 1, 2] and VTR_REGISTRY["fastv"] is FastVStrategy
    assert issubclass(VTR_REGISTRY["pooled"], FastVStrategy)


def test_two_folders_have_nothing_in_common(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    code = HEADER + "from .mine import NUMBER\n@register_strategy(f'guest_{NUMBER}')\nclass G(PruningStrategy):\n"
    code += "    number = NUMBER\n    def compute_scores(self, attention, image_token_range, config, **ctx): ...\n"
    for place, number in ((folder, 1), (other, 2)):
        (place / "g.py").write_text(code)
        (place / "mine.py").write_text(f"NUMBER = {number}\n")
    load(folder, "g")
    load(other, "g")
    assert VTR_REGISTRY["guest_1"].number == 1 and VTR_REGISTRY["guest_2"].number == 2


@torch.no_grad()
def test_a_map_that_is_too_large_is_refused_with_the_strategy_s_name(tiny, folder, monkeypatch):
    load(folder, "entropy")
    monkeypatch.setattr(wholemaps, "DENSE_AT_MOST", 1000)
    own = next(own for own in TINIES if own.name == "llava-llama-mha")
    model = tiny(own, "sdpa")
    config = VTRConfig(strategy="entropy", prune_layer=2, keep_ratio=0.5)
    told = r"in compute_scores .*: EntropyStrategy: .* numbers \(.*1000 bytes"
    with sl.apply(model, config), pytest.raises(sl.InputError, match=told):
        model(**prompt(own, model)[0])


@pytest.mark.parametrize("own", [own for own in TINIES if own.name in (*FOUR, "llava_next-llama")], ids=str)
@torch.no_grad()
def test_prompts_that_end_in_the_image(tiny, own):
    """What needs text says so; what does not, runs."""
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [ROW])
    end = int(torch.isin(inputs["input_ids"][0], torch.tensor(PLACEHOLDERS)).nonzero()[-1]) + 1
    inputs = cut_off(inputs, end)
    for options, message in (
        ({"strategy": "sparsevlm"}, "no token follows the image, so there is no text"),
        ({"strategy": "fastv", "query_aggregation": "question"}, "no token follows the image, so there is no text"),
        ({"strategy": "priortr"}, "no token follows the image, so there is no null token"),
        ({"strategy": "priortr_2f"}, "no token follows the image, so there is no null token"),
        ({"strategy": "fastv", "query_aggregation": "last"}, None),
    ):
        if own.name.startswith("qwen") and options["strategy"] in ("fastv", "priortr_2f"):
            message = None  # its copy reads the last row then, and its prior is zero
        config = VTRConfig(prune_layer=2, keep_tokens=4, **options)
        if message is None:
            with sl.apply(model, config) as run:
                model(**inputs)
            assert run.report.stages[0].n_after == [4]
        else:
            with sl.apply(model, config), pytest.raises(sl.InputError, match=message):
                model(**inputs)


@torch.no_grad()
def test_a_strategy_that_calls_the_final_norm_before_a_cut_after_the_last_layer(tiny):
    own = next(own for own in TINIES if own.name == "llava-llama-mha")
    model = tiny(own, "sdpa")
    inputs, _, _ = prompt(own, model)
    depth = model.config.text_config.num_hidden_layers
    last = VTRConfig(strategy="fastv", prune_layer=depth, keep_tokens=3)
    with sl.apply(model, [sl.Dart(keep=8, layer=2), last]) as run:
        both = model(**inputs)
    with sl.apply(model, sl.Dart(keep=8, layer=2)) as alone:
        want = model(**inputs)
    assert torch.equal(both.logits, want.logits)
    assert [(s.layer, s.n_after) for s in run.report.stages] == [(2, [8]), (depth, [3])]
    assert run.report.stages[0].kept[0].tolist() == alone.report.stages[0].kept[0].tolist()


@torch.no_grad()
def test_a_prior_sees_no_later_token_even_as_released(tiny, folder):
    """The cut-off prompt has none; only the score rows of the whole prompt do as the released code did."""
    load(folder, "two_forwards")
    own = next(own for own in TINIES if own.name == "qwen2_vl")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs, start, end = prompt(own, untouched)
    with sl.apply(model, VTRConfig(strategy="two_forwards", prune_layer=3, keep_tokens=7, as_released=True)) as run:
        model(**inputs)
    prior = maps_of(untouched, cut_off(inputs, end + 1))[2][0, :, -1, start:end].mean(0)
    posterior = maps_of(untouched, inputs)[2][0, :, -1, start:end].mean(0)  # the last row sees all anyway
    want = posterior / posterior.sum() - prior / prior.sum()
    assert (run.report.stages[0].scores[0] - want).abs().max() < 1e-5


def test_checking_a_strategy_says_nothing_of_maps_that_are_made_up(tiny, folder):
    load(folder, "entropy")
    own = next(own for own in TINIES if own.name == "llava-llama-mha")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.check_strategy(tiny(own, "sdpa"), VTRConfig(strategy="entropy", prune_layer=2, keep_ratio=0.5))
