"""What every method thinks of every token, against slow float64 references made from the model's own maps."""

import itertools
import math

import pytest
import torch
from by_hand import best, coming_attention, decoder_maps, fastv, priortr, read_rows, vispruner
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

import seeless as sl
from tiny_models import IMAGE, LAYERS, RAGGED, VARIANTS, make_inputs

# two images with text before, between and after; a short row; one with a single token after the image
ROWS = [*RAGGED, [4, "image:0", "image:2", 1]]
every = pytest.mark.parametrize("variant", VARIANTS, ids=str)
some = pytest.mark.parametrize("variant", (VARIANTS[1], VARIANTS[4]), ids=str)
paddings = pytest.mark.parametrize("padding", ["left", "right"])


def reduced(model, strategy, inputs):
    with torch.no_grad(), sl.apply(model, strategy) as run:
        model(**inputs)
    return run.report


def close(have, want, tolerance=2e-5):
    have, want = have.double(), torch.tensor(want, dtype=torch.float64)
    assert have.shape == want.shape
    if len(want) == 0:
        return
    assert torch.equal(have.isnan(), want.isnan())
    assert (have - want).nan_to_num().abs().max() <= tolerance * want.nan_to_num().abs().max()


@every
@paddings
@pytest.mark.parametrize("layer", [1, 2, LAYERS - 1])
def test_fastv(tiny, variant, layer, padding):
    untouched, inputs = tiny(variant, "untouched"), make_inputs(tiny(variant, "sdpa"), variant, ROWS, padding)
    rows, maps = read_rows(untouched, variant, ROWS, inputs), decoder_maps(untouched, inputs)
    stage = reduced(tiny(variant, "sdpa"), sl.FastV(keep=0.5, layer=layer), inputs).stages[0]
    for index, row in enumerate(rows):
        want = fastv(maps, layer, row, index)
        close(stage.scores[index], want)
        assert stage.kept[index].tolist() == best(want, round(len(want) / 2))


@some
@pytest.mark.parametrize("scope", ["row", "image"])
@pytest.mark.parametrize(
    ("query", "head", "last_row"), list(itertools.product(("question", "last"), ("mean", "max"), (True, False)))
)
def test_priortr(tiny, variant, query, head, last_row, scope):
    untouched, inputs = tiny(variant, "untouched"), make_inputs(tiny(variant, "sdpa"), variant, ROWS)
    rows, maps = read_rows(untouched, variant, ROWS, inputs), decoder_maps(untouched, inputs)
    strategy = sl.PriorTR(
        keep=5, layer=3, query_aggregation=query, head_aggregation=head, last_row=last_row, scope=scope
    )
    stage = reduced(tiny(variant, "sdpa"), strategy, inputs).stages[0]
    for index, row in enumerate(rows):
        units = [row.columns] if scope == "row" else [picture.columns for picture in row.pictures]
        want, kept = [], []
        for columns in units if row.columns else []:
            scores = priortr(maps, 3, row, index, columns, query, head, last_row)
            kept += [len(want) + place for place in best(scores, 5)]
            want += scores
        close(stage.scores[index], want, 5e-5)
        assert stage.kept[index].tolist() == kept


def test_priortr_options_differ(tiny):
    """The check above has teeth: no two combinations think the same."""
    variant = VARIANTS[1]
    inputs = make_inputs(tiny(variant, "sdpa"), variant, [RAGGED[0]])
    seen = []
    for query, head in itertools.product(("question", "last"), ("mean", "max")):
        for last_row in (True, False) if query == "question" else (True,):
            knobs = {"query_aggregation": query, "head_aggregation": head, "last_row": last_row}
            seen.append(reduced(tiny(variant, "sdpa"), sl.PriorTR(keep=5, **knobs), inputs).stages[0].scores[0])
    assert all((a - b).abs().max() > 1e-4 for a, b in itertools.combinations(seen, 2))


@every
@torch.no_grad()
def test_pyramiddrop(tiny, variant):
    model = variant.build("sdpa", torch.float64)
    inputs = make_inputs(model, variant, ROWS)
    rows = read_rows(tiny(variant, "untouched"), variant, ROWS, inputs)
    keeps, layers = [0.5, 0.25, 0.125], [1, 3, 4]
    with sl.apply(model, sl.PyramidDrop(keep=keeps, layer=layers)) as run:
        states = model(**inputs, output_hidden_states=True).hidden_states
    for index, row in enumerate(rows):
        alive = list(range(len(row.columns)))
        for stage, keep, layer in zip(run.report.stages, keeps, layers, strict=True):
            if not alive:
                assert stage.kept[index].tolist() == []
                continue
            gone = {column for place, column in enumerate(row.columns) if place not in alive}
            present = [column for column in row.real if column not in gone]
            own = [row.columns[place] for place in alive]
            want = coming_attention(model, layer, states[layer][index], present, own)
            close(stage.scores[index], want)
            alive = [alive[place] for place in best(want, math.floor(len(row.columns) * keep))]
            assert stage.kept[index].tolist() == alive


def test_pyramiddrop_by_default_acts_at_every_quarter():
    assert sl.PyramidDrop().layers(32) == [8, 16, 24]
    assert sl.PyramidDrop().layers(40) == [10, 20, 30]
    assert sl.PyramidDrop().layers(LAYERS) == [1, 3, 4]


@every
@pytest.mark.parametrize("newlines", [False, True])
def test_fastervlm(tiny, variant, newlines):
    untouched, inputs = tiny(variant, "untouched"), make_inputs(tiny(variant, "sdpa"), variant, ROWS)
    rows = read_rows(untouched, variant, ROWS, inputs)
    stage = reduced(tiny(variant, "sdpa"), sl.FasterVLM(keep=0.3, newlines=newlines), inputs).stages[0]
    assert stage.layer == 0
    for index, row in enumerate(rows):
        want, kept = [], []
        for picture in row.pictures:
            scores = picture.class_scores()
            places = [place for place, origin in enumerate(picture.origins) if origin is None and newlines]
            for crop in {origin[0] for origin in picture.origins if origin is not None}:
                own = [i for i, origin in enumerate(picture.origins) if origin is not None and origin[0] == crop]
                chosen = best([scores[i] for i in own], max(1, round(0.3 * len(own))))
                places += [own[place] for place in chosen]
            kept += [len(want) + place for place in sorted(places)]
            want += scores
        close(stage.scores[index], want)
        assert stage.kept[index].tolist() == kept


@every
@pytest.mark.parametrize(
    ("keep", "ratio", "as_released"),
    [(12, 0.25, True), (11, 0.5, False), (6, 0.5, True), (3, 0.34, True), (14, 0.0, True), (5, 1, False)],
)
def test_vispruner(tiny, variant, keep, ratio, as_released):
    untouched, inputs = tiny(variant, "untouched"), make_inputs(tiny(variant, "sdpa"), variant, ROWS)
    rows = read_rows(untouched, variant, ROWS, inputs)
    strategy = sl.VisPruner(keep=keep, important_ratio=ratio, as_released=as_released)
    stage = reduced(tiny(variant, "sdpa"), strategy, inputs).stages[0]
    for index, row in enumerate(rows):
        want, kept = [], []
        for picture in row.pictures:
            scores, places = picture.class_scores(), []
            for crop in {origin[0] for origin in picture.origins if origin is not None}:
                own = [i for i, origin in enumerate(picture.origins) if origin is not None and origin[0] == crop]
                features = [picture.features[picture.origins[i]].tolist() for i in own]
                chosen = vispruner([scores[i] for i in own], features, min(keep, len(own)), ratio, as_released)
                places += [own[place] for place in chosen]
            kept += [len(want) + place for place in sorted(places)]
            want += scores
        close(stage.scores[index], want)
        assert stage.kept[index].tolist() == kept


def test_vispruner_in_many_steps():
    """64 patches, thinned eight at a time: now the order of the survivors decides, too."""
    plain = VARIANTS[1].build().config
    vision = CLIPVisionConfig(**{**plain.vision_config.to_dict(), "image_size": 64})
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(**{**plain.to_dict(), "vision_config": vision})).eval()
    pixels = torch.randn(1, 3, 64, 64)
    ids = torch.tensor([[5, 6, *[IMAGE] * 64, 7, 8]])
    model.model.vision_tower.set_attn_implementation("eager")
    with torch.no_grad():
        out = model.model.vision_tower(pixels, output_attentions=True, output_hidden_states=True)
    scores = out.attentions[1][0, :, 0, 1:].double().mean(0).tolist()
    features = out.hidden_states[-2][0, 1:].double().tolist()
    kept = []
    for as_released in (True, False):
        report = reduced(
            model, sl.VisPruner(keep=10, as_released=as_released), {"input_ids": ids, "pixel_values": pixels}
        )
        kept.append(report.stages[0].kept[0].tolist())
        assert kept[-1] == vispruner(scores, features, 10, 0.5, as_released)
    assert kept[0] != kept[1]


@some
@pytest.mark.parametrize("layer", [0, 2])
def test_random(tiny, variant, layer):
    model, inputs = tiny(variant, "sdpa"), make_inputs(tiny(variant, "sdpa"), variant, ROWS)
    kept = []
    for seed in (0, 0, 1):
        stage = reduced(model, sl.Random(keep=6, seed=seed, layer=layer), inputs).stages[0]
        kept.append([k.tolist() for k in stage.kept])
        for row, n, scores, own in zip(ROWS, stage.n_before, stage.scores, stage.kept, strict=True):
            assert ((scores >= 0) & (scores < 1)).all() and len(scores) == n
            assert len(own) == 6 * sum(isinstance(part, str) for part in row)
    assert kept[0] == kept[1] != kept[2]
    same_size = [kept[0][0], kept[0][3]] if variant.family == "llava" else [kept[0][0], kept[0][4][:6]]
    assert same_size[0] == same_size[1]  # the same places in every image of the same size


def test_random_leaves_the_global_generator_alone(tiny):
    variant = VARIANTS[1]
    inputs = make_inputs(tiny(variant, "sdpa"), variant, RAGGED)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    reduced(tiny(variant, "sdpa"), sl.Random(keep=6), inputs)
    assert torch.equal(torch.random.get_rng_state(), state)


@some
@pytest.mark.parametrize("layer", [0, 2])
@pytest.mark.parametrize("keep", [1, 5, 7, 16])
def test_uniform(tiny, variant, layer, keep):
    model, inputs = tiny(variant, "sdpa"), make_inputs(tiny(variant, "sdpa"), variant, ROWS)
    rows = read_rows(tiny(variant, "untouched"), variant, ROWS, inputs)
    stage = reduced(model, sl.Uniform(keep=keep, layer=layer), inputs).stages[0]
    assert stage.scores is None
    for index, row in enumerate(rows):
        want, start = [], 0
        for picture in row.pictures:
            n = len(picture.columns)
            want += [start + math.floor((i + 0.5) * n / keep) for i in range(keep)]
            start += n
        assert stage.kept[index].tolist() == want


@some
@torch.no_grad()
def test_a_second_stage_ranks_what_the_first_left(tiny, variant):
    """FastV twice: the second ranking is the map of the model that already dropped, eager against sdpa."""
    inputs = make_inputs(tiny(variant, "sdpa"), variant, [RAGGED[0]])
    strategy = sl.FastV(keep=[0.5, 0.25], layer=[2, 4])
    stages = reduced(tiny(variant, "sdpa"), strategy, inputs).stages
    with sl.apply(tiny(variant, "eager"), sl.FastV(keep=0.5, layer=2)):
        maps = tiny(variant, "eager")(**inputs, output_attentions=True).attentions
    n = len(stages[0].kept[0])
    want = maps[3][0, :, -1, 5 : 5 + n].double().mean(0).tolist()
    close(stages[1].scores[0], want)
    first = stages[0].kept[0].tolist()
    assert stages[1].kept[0].tolist() == [first[place] for place in best(want, round(stages[0].n_before[0] / 4))]


@torch.no_grad()
def test_of_a_crop_whose_best_patches_are_gone_the_best_that_is_left_stays():
    """FasterVLM's `padding` ranks whole crops; here an earlier method left two patches of each."""
    model = VARIANTS[1].build("sdpa")
    inputs = make_inputs(model, VARIANTS[1], RAGGED)
    report = reduced(model, [sl.Uniform(keep=2, scope="crop"), sl.FasterVLM(keep=1, padding=True)], inputs)
    before, after = report.stages
    assert after.n_after == [n // 2 for n in before.n_after] and any(after.n_after)
    for kept, own, scores in zip(before.kept, after.kept, after.scores, strict=True):
        pairs = zip(kept.view(-1, 2).tolist(), scores.view(-1, 2).argmax(1).tolist(), strict=True)
        assert own.tolist() == [pair[best] for pair, best in pairs]
