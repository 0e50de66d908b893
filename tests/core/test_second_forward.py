"""`ctx.second` and PriorTR-2F's priors against the stock model run on the other prompt: eager attention, float64."""

from functools import cache

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import seeless as sl
from layer_loop import by_layer
from seeless.families import family_of
from tinies import IMAGE, RAGGED, RAGGED_VIDEO, TINIES, VIDEO, make_inputs, make_pieces
from tinies.windowed import WINDOWED
from tiny_models import BACKENDS

BEFORE, BETWEEN, AFTER = [7, 8, 9, 10], [21, 22], [31, 32, 33]
SMALL = next(own for own in TINIES if own.name == "gemma4-small")  # a second prompt lacks what its layers need
# The omni models look for pictures by the marker before them, which is no part of a second prompt, to number positions.
# Layers of ERNIE take something of their own for every token, as those of small Gemma 4 do.
REFUSED = ("omni_", "ernie4_5")
CASES = [(t, kind) for t in TINIES for kind in t.kinds if t is not SMALL and not any(n in t.name for n in REFUSED)]
EVERY_CROP_AN_IMAGE = (
    *("smolvlm", "idefics3", "gemma3", "aya_vision", "cohere2_vision"),
    *("lfm2_vl", "minicpmv4_6", "minicpmv4_7"),
)
LONGER = [(own, "image") for own in WINDOWED if not own.name.startswith(SMALL.name)]
EXPERTS = ("llava-gpt_oss-windowed", "gemma4-windowed")
CHOSEN = [own for own in TINIES if own.name in ("qwen2_vl", "qwen3_vl", "internvl")]
CHOSEN.insert(0, TINIES[0])  # LLaVA
named = {"ids": lambda case: "-".join(map(str, case)) if isinstance(case, tuple) else str(case)}


IN_FLOAT32 = ("qwen3_vl_moe", "qwen3_5_moe", "glm4v_moe", "kimi_k25")


@cache
def exact(own, backend="eager"):
    """Under eager attention float64 turns padded rows into NaN in stock transformers, so batches run under sdpa."""
    single = own.name in IN_FLOAT32 or own.name in EXPERTS  # experts know no float64
    return own.build(backend, torch.float32 if single else torch.float64)


class Asking(sl.LayerStrategy):
    """Asks for second prompts at two depths, and keeps everything."""

    layer: int | list[int] = 3

    def prepare(self, ctx):
        SEEN.append(ctx.second(BEFORE, BETWEEN, AFTER, [1, 3]))
        return SEEN[-1]

    def score(self, ctx):
        SEEN.append(ctx.prepared)
        return ctx.index.float()


SEEN = []


def images_of(own, piece):
    """The ids of a piece from its first to its last placeholder; of every run where every run is an image."""
    places = [i for i, token in enumerate(piece.ids) if token in (IMAGE, VIDEO)]
    if not own.name.startswith(EVERY_CROP_AN_IMAGE):
        return [piece.ids[places[0] : places[-1] + 1]]
    runs = [[places[0]]]
    for place in places[1:]:
        runs[-1].append(place) if place == runs[-1][-1] + 1 else runs.append([place])
    return [[piece.ids[i] for i in run] for run in runs]


def prompt_around(model, own, row, before=BEFORE, between=BETWEEN, after=AFTER):
    """The stock inputs of other text around the images of `row`."""
    pieces = make_pieces(model, own, row)
    ids = list(before)
    for number, image in enumerate(image for piece in pieces for image in images_of(own, piece)):
        ids += [*(between if number else []), *image]
    ids = torch.tensor([[*ids, *after]])
    mask = torch.ones_like(ids)
    kinds = [part.split(":")[0] for part in row if isinstance(part, str)]
    by_kind = {k: [p for p, own_kind in zip(pieces, kinds, strict=True) if own_kind == k] for k in own.kinds}
    extra = own.collate(by_kind, ids, mask)
    if own.name.startswith("paligemma"):
        extra["token_type_ids"] = torch.zeros_like(ids)  # a prompt without an answer
    extra = {k: v.to(model.dtype) if v.is_floating_point() and "pixel" in k else v for k, v in extra.items()}
    return {"input_ids": ids, "attention_mask": mask, **extra}


def last_rows(model, inputs, layers):
    """`[layers, heads, visual]` of the stock model's own weights."""
    attentions = by_layer(model, model(**inputs, output_attentions=True).attentions)
    visual = torch.isin(inputs["input_ids"][0], torch.tensor([IMAGE, VIDEO]))
    return torch.stack([attentions[layer][0, :, -1, visual] for layer in layers])


def with_images(rows):
    return [row for row in rows if any(isinstance(part, str) for part in row)]


@pytest.mark.parametrize("case", [*CASES, *LONGER], **named)
@torch.no_grad()
def test_a_second_prompt_is_the_stock_models(case):
    """Every family, left-padded ragged batches, several images, image and video; one row at a time and once."""
    own, kind = case
    family = family_of(own.config().model_type)
    if family.canvas or family.both_ways_joined:
        pytest.skip("what stands next to a picture depends on the picture, so a second prompt is refused")
    model, rows = exact(own), RAGGED_VIDEO if kind == "video" else RAGGED
    inputs = make_inputs(model, own, rows)
    SEEN.clear()
    batched = exact(own, "sdpa")
    with sl.apply(batched, Asking(keep=0.9)) as run:
        batched(**inputs)
    got = [row for tensor in SEEN[: len(SEEN) // 2] for row in tensor]
    again = [row for tensor in SEEN[len(SEEN) // 2 :] for row in tensor]
    assert len(got) == len(again) == len(with_images(rows)) and run.report is not None
    wanted = [last_rows(model, prompt_around(model, own, row), [1, 3]) for row in with_images(rows)]
    bound = 2e-6 if model.dtype == torch.float64 else 1e-5
    for found in (got, again):
        left = list(found)
        for want in wanted:
            near = [x for x in left if x.shape == want.shape and (x - want).abs().max() < bound]
            assert len(near) >= 1
            left = [x for x in left if x is not near[0]]


def reference(posterior, prior):
    """methods.md 2.1 with lists; both `[heads][visual]`, mean over heads."""
    import math

    p, q = ([sum(head[i] for head in rows) / len(rows) for i in range(len(rows[0]))] for rows in (posterior, prior))
    p, q = ([x / (sum(v) + 1e-10) for x in v] for v in (p, q))
    return [a * math.log((a + 1e-10) / (b + 1e-10)) for a, b in zip(p, q, strict=True)]


def question_rows(model, inputs, layer):
    """`[heads, visual]`, mean over all rows after the image but the last."""
    attention = model(**inputs, output_attentions=True).attentions[layer][0]
    visual = torch.isin(inputs["input_ids"][0], torch.tensor([IMAGE, VIDEO]))
    first = int(visual.nonzero()[-1]) + 1
    return attention[:, first:-1][:, :, visual].mean(1)


@pytest.mark.parametrize("own", CHOSEN, **named)
@pytest.mark.parametrize("prior_layer", ["same", "next"])
@torch.no_grad()
def test_template_scores(own, prior_layer):
    model = exact(own)
    for row in with_images(RAGGED):
        inputs = make_inputs(model, own, [row])
        strategy = sl.PriorTR2F(
            keep=0.4, prior_mode="template", before=BEFORE, between=BETWEEN, after=AFTER, prior_layer=prior_layer
        )
        with sl.apply(model, strategy) as run:
            model(**inputs)
        prior = last_rows(model, prompt_around(model, own, row), [2 if prior_layer == "same" else 3])[0]
        want = reference(question_rows(model, inputs, 2).tolist(), prior.tolist())
        assert run.report.stages[0].scores[0].tolist() == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("own", CHOSEN, **named)
@pytest.mark.parametrize("prior_layer", ["same", "next"])
@torch.no_grad()
def test_truncating_needs_no_second_forward(own, prior_layer):
    """The anchor's row is the last row of a real second run on the prompt cut behind the null token."""
    model = exact(own)
    for row in with_images(RAGGED):
        inputs = make_inputs(model, own, [row])
        with sl.apply(model, sl.PriorTR2F(keep=0.4, prior_layer=prior_layer)) as run:
            model(**inputs)
        ids = inputs["input_ids"][0]
        last = int(torch.isin(ids, torch.tensor([IMAGE, VIDEO])).nonzero()[-1])
        end = last + 2 + (1 if own.name == "internvl" else 0)  # there the null token is the second one
        short = {k: v[:, :end] if v.shape[:2] == inputs["input_ids"].shape else v for k, v in inputs.items()}
        prior = last_rows(model, short, [2 if prior_layer == "same" else 3])[0]
        want = reference(question_rows(model, inputs, 2).tolist(), prior.tolist())
        assert run.report.stages[0].scores[0].tolist() == pytest.approx(want, abs=1e-5)


TEMPLATE = sl.PriorTR2F(keep=0.4, prior_mode="template", before=BEFORE, between=BETWEEN, after=AFTER)


@pytest.mark.parametrize("own", CHOSEN, **named)
@torch.no_grad()
def test_every_backend_and_batch_decides_alike(own, tiny):
    rows, kept = RAGGED, []
    for backend in BACKENDS:
        model = tiny(own, backend)
        inputs = make_inputs(model, own, rows)
        with sl.apply(model, TEMPLATE) as run:
            out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
            model(**inputs, output_hidden_states=True)
            kept += [[row.tolist() for row in report.stages[0].kept] for report in run.reports]
            for number, row in enumerate(rows):
                if row in with_images(rows):
                    model(**make_inputs(model, own, [row]))
                    assert run.report.stages[0].kept[0].tolist() == kept[0][number]
        assert out.shape[1] == inputs["input_ids"].shape[1] + 3
    assert all(own_kept == kept[0] for own_kept in kept)


@torch.no_grad()
def test_the_running_forward_and_the_handle_are_undisturbed(tiny):
    """Same logits as a strategy that keeps the same tokens and asks nothing; nothing is left hooked or running."""
    own = CHOSEN[2]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, RAGGED)

    class Given(sl.LayerStrategy):
        """The scores of somebody else."""

        def score(self, ctx):
            return torch.zeros(ctx.visual.shape[:2])

        def reduce(self, ctx):
            return sl.Keep(MASKS[ctx.hidden.shape[1]])

    before = [set(vars(layer)) for layer in model.model.language_model.layers]
    with sl.apply(model, TEMPLATE) as run:
        states = model(**inputs, output_hidden_states=True)
        assert run._reducer.running.frame is None
    assert [set(vars(layer)) for layer in model.model.language_model.layers] == before
    masks = {}
    for row, kept in enumerate(run.report.stages[0].kept):
        if len(kept):
            mask = torch.zeros(1, run.report.n_before[row], dtype=torch.bool)
            mask[0, kept] = True
            masks[int(inputs["attention_mask"][row].sum())] = mask
    global MASKS
    MASKS = masks
    with sl.apply(model, Given(keep=0.4, layer=3, past="trim")):
        want = model(**inputs, output_hidden_states=True)
    real = inputs["attention_mask"].bool()
    assert (states.logits - want.logits)[real].abs().max() < 1e-5
    assert len(states.hidden_states) == len(want.hidden_states)
    for a, b in zip(states.hidden_states, want.hidden_states, strict=True):
        assert a.shape == b.shape and (a - b)[real].abs().max() < 1e-4


MASKS = {}


@torch.no_grad()
def test_a_prompt_that_fails_leaves_the_handle_working(tiny):
    own = CHOSEN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 5]])
    with sl.apply(model, TEMPLATE) as run:
        want = model(**inputs).logits
        handle = model.model.language_model.layers[1].register_forward_pre_hook(lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(**inputs)
        handle.remove()
        assert torch.equal(model(**inputs).logits, want) and run._reducer.running.frame is None


@torch.no_grad()
def test_later_stages_and_earlier_cuts_keep_the_prior_of_their_tokens(tiny):
    """Q of the tokens that are left, stage by stage, from the whole images; stages may also be another strategy's."""
    own = CHOSEN[2]
    model = exact(own)
    rows = with_images(RAGGED)
    strategy = sl.PriorTR2F(
        keep=[0.6, 0.3], layer=[2, 4], prior_mode="template", before=BEFORE, between=BETWEEN, after=AFTER, scope="image"
    )
    inputs = make_inputs(model, own, rows)
    seen = {}

    class Spying(sl.PriorTR2F):
        """Writes down what it takes for Q."""

        def _prior(self, ctx):
            prior = super()._prior(ctx)
            for unit, places in enumerate(ctx.index.tolist()):
                seen.setdefault(ctx.stage_index, []).append((places, prior[unit], ctx.n_original))
            return prior

    spy = Spying(**{k: v for k, v in strategy.to_dict().items() if k != "strategy"})
    batched = exact(own, "sdpa")
    with sl.apply(batched, [sl.Uniform(keep=0.8), spy]) as run:
        batched(**inputs)
    assert [stage.layer for stage in run.report.stages] == [0, 2, 4]
    units = []
    for row in rows:
        prior = last_rows(model, prompt_around(model, own, row), [1, 3])
        start = 0
        for piece in make_pieces(model, own, row):
            units.append(prior[:, :, start : start + piece.tokens])
            start += piece.tokens
    for stage in (0, 1):
        left = list(units)
        for places, prior, original in seen[stage]:
            match = [
                unit
                for unit in left
                if unit.shape[2] == original and (unit[stage][:, places] - prior).abs().max() < 2e-6
            ]
            assert match and len(places) < original
            left = [unit for unit in left if unit is not match[0]]
        assert left == []


def test_training(tiny):
    own = CHOSEN[0]
    model = own.build("sdpa").train()
    inputs = make_inputs(model, own, [[4, "image:0", 5]])
    with sl.apply(model, TEMPLATE):
        with pytest.raises(sl.UnsupportedModel, match=r"second prompt .* model.eval\(\)"):
            model(**inputs, labels=inputs["input_ids"])
        with torch.no_grad():
            assert model(**inputs).logits.isfinite().all()
        model.eval()
        assert model(**inputs).logits.isfinite().all()
    model.train()
    with sl.apply(model, sl.PriorTR2F(keep=0.4)):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.model.vision_tower.parameters())


class Squares(TorchDispatchMode):
    """Notes every tensor with two dimensions of at least `length`."""

    def __init__(self, length):
        super().__init__()
        self.length, self.found = length, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and sum(n >= self.length for n in tensor.shape) >= 2:
                self.found.add((str(func), tuple(tensor.shape)))
        return out


@torch.no_grad()
def test_no_attention_map_is_made(tiny):
    own = CHOSEN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[5, *(f"image:{seed}" for seed in range(8)), 9]])
    inputs.pop("attention_mask")
    with Squares(100) as plain:
        model(**inputs)
    long = sl.PriorTR2F(keep=0.4, prior_mode="template", before=[5] * 60, after=[6] * 60)  # 248 tokens; 142 run
    with sl.apply(model, long), Squares(100) as reduced:
        model(**inputs)
    assert reduced.found <= plain.found


@torch.no_grad()
def test_its_cost_counts(tiny):
    own = CHOSEN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 5], [4, "image:1", 3, "image:2", 5]])
    costs = []
    for strategy in (sl.PriorTR2F(keep=0.4), TEMPLATE):
        with sl.apply(model, strategy) as run:
            model(**inputs)
        costs.append(run.report.flops_after.decoder)
    from seeless.core.sizes import dimensions
    from seeless.flops import decoder_layer_flops

    size = dimensions(run._reducer.view)
    tokens = [len(BEFORE) + 16 + len(AFTER), len(BEFORE) + 32 + len(BETWEEN) + len(AFTER)]
    assert costs[1] - costs[0] == sum(2 * decoder_layer_flops(size, n) for n in tokens)


@torch.no_grad()
def test_what_cannot_be_asked(tiny):
    own = CHOSEN[0]
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[4, "image:0", 5]])
    for ids, text in (([IMAGE], "no text"), ([100], "0 ... 99"), ([-1], "no text")):
        wrong = sl.PriorTR2F(keep=0.4, prior_mode="template", after=ids)
        with sl.apply(model, wrong), pytest.raises(sl.InputError, match=text):
            model(**inputs)
    with sl.apply(model, TEMPLATE), pytest.raises(sl.InputError, match="no token follows the image"):
        model(**make_inputs(model, own, [[4, "image:0"]]))

    with sl.apply(tiny(SMALL, "sdpa"), TEMPLATE), pytest.raises(sl.UnsupportedModel, match="of their own for every"):
        tiny(SMALL, "sdpa")(**make_inputs(model, SMALL, [[4, "image:0", 5]]))

    class Late(sl.LayerStrategy):
        """Asks too late."""

        def score(self, ctx):
            return ctx.second([], [], [5], [1])

    with sl.apply(model, Late(keep=0.4)), pytest.raises(sl.InputError, match="before the first layer"):
        model(**inputs)
