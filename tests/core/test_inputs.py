"""The ways a prompt can come in: ids or embeddings, pixels or ready-made features, with or without a class token."""

import pytest
import torch
from by_hand import best, vispruner

import seeless as sl
from tinies import Llava, Qwen3VL
from tinies import make_inputs as make_prompts
from tiny_models import IMAGE, RAGGED, VARIANTS, make_inputs, picture

LLAVA = VARIANTS[1]
some = pytest.mark.parametrize("variant", (VARIANTS[1], VARIANTS[4]), ids=str)
NAMES = {
    "random": {"keep": 6},
    "pool": {"keep": 6},
    "fastv": {"keep": 0.5},
    "priortr": {"keep": 0.4},
    "pyramiddrop": {},
    "fastervlm": {"keep": 6},
    "vispruner": {"keep": 12},
}
named = pytest.mark.parametrize("name", NAMES)


def same_reports(a, b):
    assert a.to_dict()["stages"] == b.to_dict()["stages"] and a.visual == b.visual


@some
@named
@torch.no_grad()
def test_embeddings_with_pixels(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    embedded = {k: v for k, v in inputs.items() if k != "input_ids"}
    embedded["inputs_embeds"] = model.get_input_embeddings()(inputs["input_ids"])
    with sl.apply(model, name, **NAMES[name]) as run:
        want = model(**inputs).logits
        have = model(**embedded).logits
        same_reports(*run.reports)
    assert torch.equal(have, want)


@named
@torch.no_grad()
def test_generating_from_embeddings(tiny, name):
    model = tiny(LLAVA, "sdpa")
    inputs = make_inputs(model, LLAVA, [RAGGED[1]])
    embedded = {k: v for k, v in inputs.items() if k != "input_ids"}
    embedded["inputs_embeds"] = model.get_input_embeddings()(inputs["input_ids"])
    with sl.apply(model, name, **NAMES[name]) as run:
        want = model.generate(**inputs, max_new_tokens=4, do_sample=False)[:, -4:]
        assert torch.equal(model.generate(**embedded, max_new_tokens=4, do_sample=False)[:, -4:], want)
        same_reports(*run.reports)


@some
@named
@torch.no_grad()
def test_features_encoded_under_the_handle(tiny, variant, name):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    rest = dict(inputs)
    pixels = {k: rest.pop(k) for k in ("pixel_values", "image_sizes") if k in rest}
    with sl.apply(model, name, **NAMES[name]) as run:
        want = model(**inputs).logits
        features = model.get_image_features(**pixels)
        assert torch.allclose(model(**rest, mm_encoder_outputs={"image": features}).logits, want, atol=1e-5)
        same_reports(*run.reports)


@some
@torch.no_grad()
def test_positional_arguments_tuples_and_no_mask(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [RAGGED[0]])
    with sl.apply(model, "fastv", keep=0.5) as run:
        want = model(**inputs).logits
        as_tuple = model(**inputs, return_dict=False)
        sizes = {k: inputs[k] for k in ("image_sizes",) if k in inputs}
        positional = model(inputs["input_ids"], inputs["pixel_values"], **sizes).logits
        base = model.model(**inputs).last_hidden_state
    assert torch.equal(as_tuple[0], want) and len(run.reports) == 4
    assert torch.allclose(positional, want, atol=1e-6)
    assert torch.allclose(model.lm_head(base), want, atol=1e-6)


@some
@torch.no_grad()
def test_position_ids_of_the_caller(tiny, variant):
    """Rotary attention knows only distances: shifting all positions changes nothing."""
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, [RAGGED[1]])
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    for strategy in (sl.FastV(keep=0.5), sl.PyramidDrop(), sl.FasterVLM(keep=5), sl.Random(keep=5, positions="keep")):
        with sl.apply(model, strategy):
            want = model(**inputs).logits
            for shift in (0, 7):
                have = model(**inputs, position_ids=positions + shift).logits
                assert (have - want).abs().max() < 5e-5


# "full": the class token is a visual token without a patch.


def full(given_at="config"):
    model = LLAVA.build("sdpa")
    if given_at == "config":
        model.config.vision_feature_select_strategy = "full"
    ids = [torch.randint(3, 99, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (5, 4, 6)]
    row = ids[0] + [IMAGE] * 17 + ids[1] + [IMAGE] * 17 + ids[2]
    pixels = torch.stack([picture(LLAVA, seed)[0] for seed in (0, 1)])
    inputs = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
    inputs["pixel_values"] = pixels
    if given_at == "call":
        inputs["vision_feature_select_strategy"] = "full"
    return model, inputs


@pytest.mark.parametrize("newlines", [False, True])
@torch.no_grad()
def test_the_class_token_shows_no_patch(newlines):
    model, inputs = full()
    maps = []
    for pixels in inputs["pixel_values"]:
        model.model.vision_tower.set_attn_implementation("eager")
        out = model.model.vision_tower(pixels[None], output_attentions=True, output_hidden_states=True)
        maps.append((out.attentions[1][0, :, 0, 1:].double().mean(0).tolist(), out.hidden_states[-2][0, 1:].tolist()))
    for strategy, choose in (
        (sl.FasterVLM(keep=5, newlines=newlines), lambda scores, features: best(scores, 5)),
        (sl.VisPruner(keep=12, newlines=newlines), lambda scores, features: vispruner(scores, features, 12, 0.5, True)),
    ):
        with sl.apply(model, strategy) as run:
            model(**inputs)
            ids = model.generate(**inputs, max_new_tokens=2)
        want = []
        for number, (scores, features) in enumerate(maps):
            want += [17 * number] * newlines + [17 * number + 1 + patch for patch in choose(scores, features)]
        stage = run.report.stages[0]
        assert stage.kept[0].tolist() == want and ids.shape[1] == inputs["input_ids"].shape[1] + 2
        assert stage.scores[0].isnan().nonzero()[:, 0].tolist() == [0, 17]
        assert run.report.boxes[0][0][0].isnan().all() and not run.report.boxes[0][0][1:].isnan().any()


@torch.no_grad()
def test_full_in_the_decoder_and_identity():
    model, inputs = full()
    before = model(**inputs).logits
    for strategy in (sl.FastV(keep=1.0), sl.FasterVLM(keep=1.0), sl.PriorTR(keep=34)):
        with sl.apply(model, strategy):
            assert torch.equal(model(**inputs).logits, before)
    with sl.apply(model, sl.FastV(keep=0.5)) as run:
        model(**inputs)
    assert run.report.n_before == [34] and run.report.n_after == [17]
    assert not run.report.stages[0].scores[0].isnan().any()
    with sl.apply(model, "fastervlm", keep=4, scope="image") as run:
        model(**inputs)
    assert run.report.n_after == [8]  # class tokens leave: only patches are ranked


@pytest.mark.parametrize(
    "name",
    [
        "fastervlm",
        "pool",
        "vispruner",
    ],
)
@torch.no_grad()
def test_full_asked_for_in_the_call(name):
    """`vision_feature_select_strategy` is an argument of the model's forward, too."""
    kept = []
    for given_at in ("config", "call"):
        model, inputs = full(given_at)
        with sl.apply(model, name, keep=12) as run:
            model(**inputs)
        kept.append(run.report.stages[0].kept[0].tolist())
    assert kept[0] == kept[1]


@pytest.mark.parametrize("choice", [-1, -2, 1, 3, [1, -1]], ids=str)
@pytest.mark.parametrize("given_at", ["config", "call"])
@torch.no_grad()
def test_the_scored_layer_is_the_one_the_projector_takes(choice, given_at):
    """`vision_feature_layer` in the config or in the call; of several, the last."""
    model = LLAVA.build("sdpa")
    if isinstance(choice, list):
        model.model.multi_modal_projector.linear_1 = torch.nn.Linear(64, 64)
    inputs = make_inputs(model, LLAVA, [RAGGED[1]])
    model.model.vision_tower.set_attn_implementation("eager")
    out = model.model.vision_tower(inputs["pixel_values"], output_attentions=True)
    last = choice[-1] if isinstance(choice, list) else choice
    layer = (last if last >= 0 else 4 + last) - 1
    want = out.attentions[layer][:, :, 0, 1:].mean(1).flatten()
    if given_at == "config":
        model.config.vision_feature_layer = choice
    else:
        inputs["vision_feature_layer"] = choice
    with sl.apply(model, "fastervlm", keep=4) as run:
        model(**inputs)
    assert torch.allclose(run.report.stages[0].scores[0], want, atol=1e-6)


@pytest.mark.parametrize("own", [Llava("llama", 4), Qwen3VL()], ids=str)
@pytest.mark.parametrize(
    "strategy",
    [sl.Uniform(keep=0.3), sl.Uniform(keep=0.3, positions="keep"), sl.Pool(keep=4), sl.FastV(keep=4, past="trim")],
    ids=["renumbered", "kept", "merged", "trimmed"],
)
@torch.no_grad()
def test_the_longest_row_of_a_batch_loses_nothing(tiny, own, strategy):
    """The batch is then as long as before, though other rows have been cut."""
    model, rows = tiny(own, "sdpa"), [[60], [5, "image:0", 9], [2, "image:1", 3]]
    for side in ("left", "right"):
        inputs = make_prompts(model, own, rows, side)
        with sl.apply(model, strategy) as run:
            together = model(**inputs).logits
            kept = [row.tolist() for row in run.report.stages[-1].kept]
            assert [len(row) > 0 for row in kept] == [False, True, True]
            for i, row in enumerate(rows):
                one = make_prompts(model, own, [row])
                assert (together[i][inputs["attention_mask"][i].bool()] - model(**one).logits[0]).abs().max() < 5e-5
                if side == "left":
                    answers = model.generate(**inputs, max_new_tokens=4, do_sample=False)[i, -4:]
                    assert torch.equal(answers, model.generate(**one, max_new_tokens=4, do_sample=False)[0, -4:])
