"""What families have that LLaVA has not: features injected after early layers, several turns on M-RoPE, beams."""

from dataclasses import replace

import pytest
import torch
from matrix import CASES, CLIP_TOWERS, NO_LATER_TURN, PLACEHOLDERS, case_id, rows_of
from plan import covering
from transformers import DynamicCache

import seeless as sl
from oracle import oracle_of, turn_of
from seeless import families
from seeless.core.host import CACHE
from tinies import TINIES, make_inputs, repeats_patches
from tiny_models import BACKENDS

every = pytest.mark.parametrize("case", CASES, ids=case_id)
DEEPSTACK = [case for case in CASES if families.family_of(case[0].config().model_type).injected is not None]


def generate(model, inputs, tokens, **options):
    return model.generate(
        **inputs, max_new_tokens=tokens, do_sample=False, return_dict_in_generate=True, output_logits=True, **options
    )


AROUND_DEEPSTACK = {
    **{f"random-{layer}": sl.Random(keep=0.4, layer=layer) for layer in (0, 1, 2, 3, 5)},
    **{f"fastv-{layer}": sl.FastV(keep=0.5, layer=layer) for layer in (1, 2)},
    "pyramiddrop": sl.PyramidDrop(layer=[1, 2, 4], keep=[0.6, 0.4, 0.2]),
}


@covering(name=AROUND_DEEPSTACK, case=DEEPSTACK, backend=BACKENDS)
@torch.no_grad()
def test_dropping_inside_deepstack(tiny, case, backend, name):
    """Before, between and after the layers that visual features are added to; prefill and 16 decoded tokens."""
    (own, kind), steps, strategy = case, 16, AROUND_DEEPSTACK[name]
    model, untouched = tiny(own, backend), tiny(own, "untouched")
    inputs = make_inputs(model, own, rows_of(kind))
    prompt = inputs["input_ids"].shape[1]
    with sl.apply(model, strategy) as run:
        out = generate(model, inputs, steps)
        whole = model(**inputs).logits
    full = {**own.extend(inputs, steps), "input_ids": out.sequences}
    turn = turn_of(run.reports[0], inputs["input_ids"], PLACEHOLDERS)
    with oracle_of(untouched, [strategy], [turn], full["attention_mask"]):
        want = untouched(**full, use_cache=False).logits
    text = ~torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)) & inputs["attention_mask"].bool()
    assert (whole - want[:, :prompt])[text].abs().max() < 1e-4
    assert (torch.stack(out.logits, 1) - want[:, prompt - 1 : -1]).abs().max() < 2e-4
    assert torch.equal(want[:, prompt - 1 : -1].argmax(-1), out.sequences[:, prompt:])


@every
@pytest.mark.parametrize("name", ["fastv", "fastervlm"])
@torch.no_grad()
def test_a_later_turn_of_text(tiny, case, name):
    """The cache of the first turn goes on; positions (and rope deltas) are those of the whole conversation."""
    own, kind = case
    if own.name in NO_LATER_TURN:
        pytest.skip("the stock model of this release fails")
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    strategy = sl.get("uniform" if own.unread and name == "fastervlm" else name, keep=5)
    rows = [row for row in rows_of(kind) if any(isinstance(part, str) for part in row)]
    inputs = make_inputs(model, own, rows)
    with sl.apply(model, strategy) as run:
        first = generate(model, inputs, 3, **{CACHE: DynamicCache(config=model.config.get_text_config())})
        more = torch.randint(3, 90, (len(rows), 6), generator=torch.Generator().manual_seed(1))
        ids = torch.cat([first.sequences, more], 1)
        new = ids.shape[1] - inputs["input_ids"].shape[1]
        grown = own.extend(inputs, new)
        mask = grown["attention_mask"]
        types = {key: grown[key] for key in own.new_token_types if key in grown}
        given = {"input_ids": ids, "attention_mask": mask, **types}
        out = generate(model, given, 3, **{CACHE: first[CACHE]})
        assert len(run.reports) == 1
    full = {**own.extend(inputs, new + 3), "input_ids": out.sequences}
    turn = turn_of(run.reports[0], inputs["input_ids"], PLACEHOLDERS)
    with oracle_of(untouched, [strategy], [turn], full["attention_mask"]):
        want = untouched(**full, use_cache=False).logits
    assert (torch.stack(out.logits, 1) - want[:, -4:-1]).abs().max() < 1e-4


@every
@torch.no_grad()
def test_beams_see_what_a_single_answer_sees(tiny, case):
    own, kind = case
    model = tiny(own, "sdpa")
    if repeats_patches(model):
        pytest.skip("beams of the stock model are wrong in this release of transformers")
    inputs = make_inputs(model, own, [row for row in rows_of(kind) if any(isinstance(part, str) for part in row)])
    ranking = sl.Uniform(keep=5) if own.unread else sl.FasterVLM(keep=5)
    with sl.apply(model, ranking) as run:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
        alone = run.report.stages[0].kept
        model.generate(**inputs, max_new_tokens=2, do_sample=False, num_beams=3)
    kept = run.report.stages[0].kept
    assert len(kept) == 3 * len(alone)
    for row, one in enumerate(alone):
        for beam in range(3):
            assert kept[3 * row + beam].tolist() == one.tolist()


@pytest.mark.parametrize("own", TINIES, ids=str)
@torch.no_grad()
def test_the_report_says_which_attention_of_the_tower_ranked(tiny, own):
    model = tiny(own, "sdpa")
    if own.unread:
        with sl.apply(model, sl.FasterVLM(keep=5)), pytest.raises(sl.UnsupportedModel, match="shows no attention"):
            model(**make_inputs(model, own, [[3, "image:0", 4]]))
        return
    with sl.apply(model, sl.FasterVLM(keep=5)) as run:
        model(**make_inputs(model, own, [[3, "image:0", 4]]))
    has_class_token = own.name.startswith(CLIP_TOWERS)
    has_class_token |= own.name == "internvl"
    assert ("the class token's attention" in str(run.report)) == has_class_token
    assert ("the mean attention received" in str(run.report)) != has_class_token


@torch.no_grad()
def test_videos_of_a_family_that_is_not_known_to_take_any(tiny, monkeypatch):
    monkeypatch.setitem(families._own(), "glm4v", replace(families.family_of("glm4v"), video_token=None))
    own = next(tiny for tiny in TINIES if tiny.name == "glm4v")
    model = tiny(own, "sdpa")
    inputs = make_inputs(model, own, [[3, "image:0", 4]])
    videos = {"pixel_values_videos": inputs.pop("pixel_values"), "video_grid_thw": inputs.pop("image_grid_thw")}
    inputs["mm_token_type_ids"] *= 2
    assert model(**inputs, **videos).logits.isfinite().all()
    with sl.apply(model, "uniform", keep=4), pytest.raises(sl.UnsupportedModel, match="get videos here in a way"):
        model(**inputs, **videos)


@torch.no_grad()
def test_renumbering_has_no_meaning_on_m_rope(tiny):
    own = next(tiny for tiny in TINIES if tiny.name == "qwen2_vl")
    with pytest.raises(sl.UnsupportedModel, match="coordinates of time"):
        sl.apply(tiny(own, "sdpa"), sl.Random(keep=0.5, positions="renumber"))


@torch.no_grad()
def test_two_stages_before_the_same_layer(tiny):
    """The second ranks what the first left, by attention over what the first left."""
    own = TINIES[0]
    model, untouched = tiny(own, "sdpa"), tiny(own, "untouched")
    inputs = make_inputs(model, own, rows_of("image"))
    strategies = [sl.Uniform(keep=0.75, layer=2), sl.FastV(keep=4, layer=2)]
    with sl.apply(model, strategies) as run:
        logits = model(**inputs).logits
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    with oracle_of(untouched, strategies, [turn], inputs["attention_mask"]):
        want = untouched(**inputs).logits
    text = ~torch.isin(inputs["input_ids"], torch.tensor(PLACEHOLDERS)) & inputs["attention_mask"].bool()
    assert (logits - want)[text].abs().max() < 5e-5
    first, second = run.report.stages
    assert second.n_before == first.n_after and second.n_after == [4, 4, 0, 4]
    for before, after, scores in zip(first.kept, second.kept, second.scores, strict=True):
        best = before[scores.topk(min(4, len(scores))).indices.sort().values]
        assert after.tolist() == best.tolist()
