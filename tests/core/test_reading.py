"""What is read of a model is checked once, kept no longer than needed, and leaves nothing behind."""

import sys
import threading

import peft
import pytest
import torch
from test_decoder_attention import build, inputs
from tiny_clip import save_clip
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface

import seeless as sl
import tinies
from seeless import registry
from seeless.core import ahead, capture
from seeless.core.host import CACHE
from seeless.core.vision_table import Vision
from tinies import TINIES
from tinies.windowed import WINDOWED
from tiny_models import VARIANTS, flash_like, make_inputs

LLAVA = VARIANTS[1]
NAMES = {str(tiny): tiny for tiny in TINIES}
STOCK = AttentionInterface.get_interface


@pytest.fixture(autouse=True)
def _nothing_checked_yet(monkeypatch):
    monkeypatch.setattr(capture, "_checked", set())
    yield
    assert AttentionInterface.get_interface is STOCK


def wrong_kernel(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """As flash attention, but with a factor that no argument tells."""
    return flash_like(module, query, key, value, attention_mask, scaling=1.3 * scaling, **kwargs)


@pytest.mark.parametrize("strategy", [sl.FastV(keep=4), sl.PyramidDrop(keep=0.5, layer=2)], ids=["before", "coming"])
@torch.no_grad()
def test_attention_that_is_not_what_the_kernel_computes_is_refused(monkeypatch, strategy):
    model = LLAVA.build("fused")
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "fused", wrong_kernel)
    sentence = r"attention of LlamaAttention \(transformers 5.*torch 2.*attn_implementation='fused'.*please report"
    with sl.apply(model, strategy), pytest.raises(sl.UnsupportedModel, match=sentence):
        model(**given)


@torch.no_grad()
def test_tower_attention_that_is_not_what_the_kernel_computes_is_refused(monkeypatch):
    model = LLAVA.build("eager")
    model.set_attn_implementation({"vision_config": "fused"})
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "fused", wrong_kernel)
    with sl.apply(model, "fastervlm", keep=4), pytest.raises(sl.UnsupportedModel, match="attention of CLIPAttention"):
        model(**given)


@torch.no_grad()
def test_the_check_is_made_once_for_a_kind_of_attention(monkeypatch):
    model = LLAVA.build("sdpa")
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    with sl.apply(model, [sl.FasterVLM(keep=8), sl.FastV(keep=4), sl.FastV(keep=2, layer=4)]):
        model(**given)
        checked = set(capture._checked)
        assert {module.__name__ for module, *_ in checked} == {"CLIPAttention", "LlamaAttention"}
        monkeypatch.setattr("seeless.core.attention.check_attention", lambda *_: pytest.fail("checked again"))
        monkeypatch.setattr("seeless.core.tower_attention.check_attention", lambda *_: pytest.fail("checked again"))
        model(**given)


@pytest.mark.parametrize("strategy", [sl.FastV(keep=4), sl.PyramidDrop(keep=0.5, layer=2)], ids=["before", "coming"])
@torch.no_grad()
def test_another_kernel_under_the_name_of_one_that_was_checked_is_checked_too(monkeypatch, strategy):
    model = LLAVA.build("fused")
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    with sl.apply(model, strategy):
        model(**given)
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "fused", wrong_kernel)
        with pytest.raises(sl.UnsupportedModel, match="attention of LlamaAttention"):
            model(**given)


@torch.no_grad()
def test_other_threads_get_the_stock_kernels_while_one_is_watched(tiny):
    model, seen = tiny(LLAVA, "sdpa"), []
    kernel = ALL_ATTENTION_FUNCTIONS["sdpa"]

    class Asking(sl.LayerStrategy):
        def score(self, ctx):
            def look():
                seen.append(ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", None) is kernel)

            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
            seen.append(ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", None) is kernel)
            return ctx.attention().mean((1, 2))

    with sl.apply(model, Asking(keep=4)):
        model(**make_inputs(model, LLAVA, [[5, "image:0", 9]]))
    assert seen == [True, False]


@torch.no_grad()
def test_a_forward_that_ends_early_leaves_the_kernels_alone(tiny):
    class Failing(sl.LayerStrategy):
        def score(self, ctx):
            ctx.attention(layer=ctx.layer)
            raise ValueError("in the middle")

    model = tiny(LLAVA, "sdpa")
    with sl.apply(model, Failing(keep=4)):
        with pytest.raises(ValueError, match="in the middle"):
            model(**make_inputs(model, LLAVA, [[5, "image:0", 9]]))
        assert AttentionInterface.get_interface is STOCK


SIGNALS = {
    "features": ("cdpruner", "eadp"),
    "attention": ("fastervlm", "fastvid", "flashvid", "holitom", "holov", "tops"),
    "attention features": ("vispruner", "scope", "anchorprune", "prunesid"),
    "layers": ("hiprune", "mmtok", "mustdrop", "vscan"),
    "attention keys features class_token": ("visionzip",),
    "features reader_attention reader_keys": ("prumerge", "prumerge_plus"),
}
BY_FIELD = {"fastvid": {"pooling"}}  # read with another value of a field than the default
BY_CLIP = ("anchorprune", "cdpruner", "eadp")
READS = {name: set(signals.split()) for signals, names in SIGNALS.items() for name in names}


@pytest.mark.parametrize("name", [name for name in sorted(sl.available()) if not name.startswith("vtr:")])
@torch.no_grad()
def test_strategies_declare_what_they_read_of_the_tower_and_no_more(name, monkeypatch, tmp_path):
    asked, check = set(), Vision._check

    def note(self, signal):
        asked.add(signal)
        check(self, signal)

    monkeypatch.setattr(Vision, "_check", note)
    cls = registry.strategy_class(name)
    if cls.parts is not sl.Strategy.parts:
        pytest.skip("made of other strategies")
    folder = save_clip(tmp_path)  # with a tokenizer
    options = {"clip": folder, "question": "how many ?"} if name in BY_CLIP else {}
    options |= {"question": "how many ?"} if name == "mmtok" else {}
    for family in ("llava-llama-mha", "qwen2_vl"):
        if name in (*BY_CLIP, "flowcut") and family == "qwen2_vl":  # which has no CLIP tower
            continue
        model = NAMES[family].build("sdpa")
        model.config._name_or_path = folder
        given = tinies.make_inputs(model, NAMES[family], [[5, "image:0", 9]])
        try:
            strategy = sl.get(name, keep=0.3 if name == "tops" else 0.6, **options)
        except sl.BudgetError:
            strategy = sl.get(name, **options)
        with sl.apply(model, strategy):
            model(**given)
    assert asked == READS.get(name, set())
    assert set(cls.tower) == asked | BY_FIELD.get(name, set())


@pytest.mark.parametrize("family", ["llava-llama-mha", "qwen2_vl"])
@torch.no_grad()
def test_tower_states_are_given_up_with_the_prefill(family):
    """Encoded ahead, as `generate` does: what hangs on the features is what was computed of them."""
    tiny = NAMES[family]
    model = tiny.build("sdpa")
    given = tinies.make_inputs(model, tiny, [[5, "image:0", 9]])
    pixels = {name: given.pop(name) for name in list(given) if name.startswith(("pixel", "image_"))}
    names = {"grids": pixels["image_grid_thw"]} if "image_grid_thw" in pixels else {}
    base = model.model
    more = {"image_grid_thw": names["grids"]} if names else {}
    for strategy, held in ((sl.FastV(keep=4), False), (sl.FasterVLM(keep=4), True)):
        with sl.apply(model, strategy) as run:
            ahead = base.get_image_features(**pixels)
            tap = ahead._seeless_note.vision
            assert bool(tap.made.calls) is held
            assert tap.reader is None or not tap.reader.calls
            assert tap.given is None and tap.projected is None and tap.class_token is None
            first = model(**given, mm_encoder_outputs={"image": ahead}, **more).logits
            scores = run.report.stages[0].scores
            assert not tap.made.calls
            again = model(**given, mm_encoder_outputs={"image": ahead}, **more).logits
            assert torch.equal(first, again)
            assert torch.equal(run.report.stages[0].scores[0], scores[0])


@torch.no_grad()
def test_what_another_handle_did_not_ask_for_cannot_be_asked_later():
    tiny = NAMES["llava-llama-mha"]
    model = tiny.build("sdpa")
    given = tinies.make_inputs(model, tiny, [[5, "image:0", 9]])
    with sl.apply(model, sl.Random(keep=4)):
        ahead = model.model.get_image_features(given.pop("pixel_values"))
        model(**given, mm_encoder_outputs={"image": ahead})
    with sl.apply(model, sl.FasterVLM(keep=4)), pytest.raises(sl.InputError, match=r"^this strategy asks the vision"):
        model(**given, mm_encoder_outputs={"image": ahead})


@torch.no_grad()
def test_what_was_not_asked_for_the_first_time_cannot_be_asked_later():
    turns = []

    class Changing(sl.EntryStrategy):
        def score(self, ctx):
            turns.append(1)
            return ctx.vision_attention().mean(1) if len(turns) == 1 else ctx.vision_keys().norm(dim=-1).mean(1)

    tiny = NAMES["llava-llama-mha"]
    model = tiny.build("sdpa")
    given = tinies.make_inputs(model, tiny, [[5, "image:0", 9]])
    with sl.apply(model, Changing(keep=4)):
        ahead = model.model.get_image_features(given.pop("pixel_values"))
        model(**given, mm_encoder_outputs={"image": ahead})
        with pytest.raises(sl.InputError, match="given up since; pass pixel_values, or call get_image_features again"):
            model(**given, mm_encoder_outputs={"image": ahead})


def with_adapter(model):
    """LoRA with dropout on what makes queries and keys, its weights away from zero."""
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "k_proj"], lora_dropout=0.5, init_lora_weights=False)
    torch.manual_seed(1)
    return peft.get_peft_model(model, config)


def test_under_dropout_the_attention_is_the_one_of_this_forward(monkeypatch):
    """An adapter that was trained on is trained further: its dropout changes queries and keys at every call."""
    model = with_adapter(LLAVA.build("eager")).train()
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    attention = model.get_base_model().model.language_model.layers[1].self_attn
    home = sys.modules[type(attention).__module__]
    stock, seen = home.eager_attention_forward, []

    def spy(module, *args, **kwargs):
        output, weights = stock(module, *args, **kwargs)
        if module is attention:
            seen.append(weights.detach())
        return output, weights

    monkeypatch.setattr(home, "eager_attention_forward", spy)
    with sl.apply(model, sl.FastV(keep=4)) as run:
        model(**given).logits.sum().backward()
    assert len(seen) == 1
    assert torch.allclose(run.report.stages[0].scores[0], seen[0][0, :, -1, 5:21].mean(0), atol=1e-6)


def test_the_coming_layer_is_read_without_dropout_and_without_a_trace():
    model = with_adapter(LLAVA.build("sdpa")).train()
    layer = model.get_base_model().model.language_model.layers[2]
    hidden = torch.randn(2, 7, 64)
    rotary = tuple(torch.ones(1, 7, 16) for _ in range(2))
    before = torch.get_rng_state()

    def queries():
        return ahead.run_ahead(layer, hidden, (), {"position_embeddings": rotary}, 0, False).query

    first = queries()
    assert torch.equal(first, queries()) and not first.requires_grad
    assert torch.equal(torch.get_rng_state(), before) and layer.training
    model.eval()
    assert torch.equal(first, queries())


@pytest.mark.parametrize("strategy", [sl.FastV(keep=6), sl.PyramidDrop(keep=0.5, layer=2)], ids=["before", "coming"])
def test_weights_read_under_autocast_still_learn(strategy):
    model = LLAVA.build("sdpa").train()
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    with torch.autocast("cpu", torch.bfloat16), sl.apply(model, strategy):
        model(**given).logits.float().logsumexp(-1).sum().backward()
    for layer in model.model.language_model.layers:
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            assert part.weight.grad is not None and part.weight.grad.abs().max() > 0


@pytest.mark.parametrize("strategy", [sl.FastV(keep=4), sl.Uniform(keep=4, positions="keep")], ids=["layer", "entry"])
@torch.no_grad()
def test_decoding_where_attention_itself_reads_positions(strategy):
    """Ministral 3 scales queries by their position: every layer gets those of the tokens it sees, later ones too."""
    given, dtype = inputs(torch.float64, batch=1), torch.float64
    model, untouched = build("ministral3", "eager", dtype), build("ministral3", "eager", dtype)
    columns = (given["input_ids"][0] == 99).nonzero()[:, 0]
    token = torch.tensor([[17]])
    with sl.apply(model, strategy) as run:
        out = model(**given, use_cache=True)
        later = model(input_ids=token, **{CACHE: out[CACHE]}).logits[0, -1]
    first = run.report.stages[0].layer
    gone = torch.ones(len(columns), dtype=torch.bool)
    gone[run.report.stages[0].kept[0]] = False

    def mask(module, args, kwargs):
        full = kwargs["attention_mask"].clone()
        full[..., columns[gone]] = torch.finfo(full.dtype).min
        return args, {**kwargs, "attention_mask": full}

    for layer in untouched.model.language_model.layers[first:]:
        layer.register_forward_pre_hook(mask, with_kwargs=True)
    ids = torch.cat([given["input_ids"], token], 1)
    whole = untouched(input_ids=ids, pixel_values=given["pixel_values"]).logits[0]
    kept = out.logits[0, -1]
    assert torch.allclose(kept, whole[-2], atol=1e-5) and torch.allclose(later, whole[-1], atol=1e-5)


@torch.no_grad()
def test_gaps_in_positions_that_a_flash_kernel_would_take_for_packed_sequences():
    model = build("ministral3", "fused", torch.float32)
    with sl.apply(model, sl.FastV(keep=4)), pytest.raises(sl.UnsupportedModel, match=r"positions='renumber'.*'sdpa'"):
        model(**inputs(torch.float32, batch=1))


@pytest.mark.parametrize("kind", ["llama", "glm", "cohere", "gpt_oss"])
@torch.no_grad()
def test_bias_of_positions_depends_on_the_distance_alone_wherever_pairs_stand(kind):
    """All-one queries and keys: twice the sum of cosines over all frequencies, and one for each dimension left."""
    found = []

    class Asking(sl.LayerStrategy):
        def score(self, ctx):
            found.append(ctx.rope_bias("last"))
            return ctx.visual[..., 0]

    model = build(kind, "eager", torch.float32)
    given = inputs(torch.float32, batch=1)
    with sl.apply(model, Asking(keep=4)):
        model(**given)
    rotary = model.model.language_model.rotary_emb
    columns = (given["input_ids"][0] == 99).nonzero()[:, 0]
    distance = given["input_ids"].shape[1] - 1 - columns
    angles = distance[:, None] * rotary.inv_freq.double()
    product = 2 * angles.cos().sum(1) * rotary.attention_scaling**2 + (16 - 2 * len(rotary.inv_freq))
    assert torch.allclose(found[0][0, 0, 0].double(), product / 4, atol=1e-5)


@pytest.mark.parametrize("kind", ["cohere2", "exaone4", "ministral"])
@torch.no_grad()
def test_layers_that_turn_nothing_have_no_bias_of_positions(kind):
    """The global layers of Cohere 2 and EXAONE 4: the product of ones there is that of ones, at any distance."""
    own = next(own for own in WINDOWED if own.name == f"llava-{kind}-windowed")
    model, found = own.build("sdpa"), {}

    class Asking(sl.LayerStrategy):
        def score(self, ctx):
            for layer in (ctx.layer - 1, ctx.layer):
                found[layer] = ctx.rope_bias("last", layer=layer)
            return ctx.visual[..., 0]

    given = tinies.make_inputs(model, own, [[5, "image:0", 9]])
    for layer in (2, 3):
        with sl.apply(model, Asking(keep=4, layer=layer)):
            model(**given)
    columns = (given["input_ids"][0] == 99).nonzero()[:, 0]
    distance = given["input_ids"].shape[1] - 1 - columns
    for layer, bias in found.items():
        q = torch.ones(1, 1, 1, 16)
        k = torch.ones(1, 1, len(columns), 16)
        if own.turns[layer]:
            angles = torch.cat([distance[:, None] * model.model.language_model.rotary_emb.inv_freq] * 2, -1)
            k = k * angles.cos()  # what turning by the distance leaves of a product of ones
        assert torch.allclose(bias, q @ k.transpose(-1, -2) / 4, atol=1e-5), layer
    assert sorted(found) == [1, 2, 3]


def test_layers_without_attention_functions_are_named(monkeypatch):
    model = LLAVA.build("eager")
    home = sys.modules[type(model.model.language_model.layers[0].self_attn).__module__]

    class Stubborn:
        @staticmethod
        def get_interface(name, default):
            return default

    monkeypatch.setattr(home, "ALL_ATTENTION_FUNCTIONS", Stubborn)
    given = make_inputs(model, LLAVA, [[5, "image:0", 9]])
    for strategy in (sl.FastV(keep=4), sl.PyramidDrop(keep=0.5, layer=2)):
        with (
            torch.no_grad(),
            sl.apply(model, strategy),
            pytest.raises(sl.UnsupportedModel, match="no attention module of LlamaDecoderLayer takes its kernel"),
        ):
            model(**given)
