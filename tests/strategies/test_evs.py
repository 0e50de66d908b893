"""EVS against its definition written with lists, and what it does with stills."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept, top, unit_of
from tinies import IMAGE, VIDEO, LlavaNextVideo, LlavaOnevision, Qwen3VL, VideoLlava, make_pieces
from tinies import make_inputs as make_prompts
from tiny_models import RAGGED, VARIANTS, make_inputs


def video(units, frames, height, width, seed, dtype=torch.float32, dim=6):
    """Frames that partly repeat, as videos do."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(units, 1, height * width, dim, generator=generator)
    step = torch.randn(units, frames, height * width, dim, generator=generator)
    moved = torch.rand(units, frames, height * width, 1, generator=generator) * 0.5
    return (x + (step * moved).cumsum(1)).flatten(1, 2).to(dtype)


def reduced(strategy, count, embeds, grid=None, **places):
    return strategy.reduce(fake_context(count, *embeds.shape[:2], grid=grid, layer=0, embeds=embeds, **places))


def plain_scores(embeds, frame, patch):
    """One unit: lists of vectors, frames and places; a token is compared with the one before it in time, if any."""
    at = {(t, p): x for x, t, p in zip(embeds, frame, patch, strict=True)}
    scores = []
    for x, t, p in zip(embeds, frame, patch, strict=True):
        if t == min(frame) or p == -1:
            scores.append(3.0)
        else:
            scores.append(1 - cosine(x, at[t - 1, p]) if (t - 1, p) in at else 2.0)
    return scores


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(2, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9999), st.data())
def test_scores_and_kept_tokens(units, frames, height, width, seed, data):
    x, size = video(units, frames, height, width, seed), height * width
    count = data.draw(st.integers(1, frames * size))
    strategy, grid = sl.EVS(keep=count), (frames, height, width)
    decision = reduced(strategy, count, x, grid)
    frame, patch = [i // size for i in range(frames * size)], [i % size for i in range(frames * size)]
    for unit in range(units):
        scores = plain_scores(x[unit].double().tolist(), frame, patch)
        assert torch.allclose(decision.scores[unit].double(), torch.tensor(scores, dtype=torch.float64), atol=1e-5)
        assert kept(decision)[unit] == top(decision.scores[unit].tolist(), max(size, count))
        assert kept(decision)[unit][:size] == list(range(size))
        alone = reduced(strategy, count, x[unit : unit + 1], grid)
        assert torch.equal(alone.mask[0], decision.mask[unit]) and torch.equal(alone.scores[0], decision.scores[unit])


@st.composite
def layouts(draw, tokens):
    """(frame, patch) of a unit: a still, or frames of which some tokens are gone and some show no patch."""
    if draw(st.booleans()):
        return [-1] * tokens, draw(st.lists(st.integers(-1, 8), min_size=tokens, max_size=tokens))
    frames = sorted(draw(st.lists(st.integers(0, 4), min_size=tokens, max_size=tokens)))
    places = []
    for number in sorted(set(frames)):
        some = st.lists(st.integers(0, 2 * tokens), unique=True, min_size=frames.count(number))
        own = sorted(draw(some)[: frames.count(number)])
        places += [-1 if draw(st.integers(0, 4)) == 0 else place for place in own]
    return frames, places


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.integers(1, 14), st.integers(0, 9999), st.data())
def test_frames_with_gaps_and_tokens_without_a_patch(units, tokens, seed, data):
    """Units of one group may have different frames; every one gets at least what it must keep, else exactly n."""
    x = torch.randn(units, tokens, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    frame, patch = zip(*(data.draw(layouts(tokens)) for _ in range(units)), strict=True)
    places = {"frame": torch.tensor(frame), "patch": torch.tensor(patch)}
    count = data.draw(st.integers(1, tokens))
    strategy = sl.EVS(keep=count)
    decision = reduced(strategy, count, x, **places)
    for unit in range(units):
        scores = plain_scores(x[unit].tolist(), frame[unit], patch[unit])
        assert decision.scores[unit].tolist() == pytest.approx(scores, abs=1e-12)
        assert kept(decision)[unit] == top(decision.scores[unit].tolist(), max(scores.count(3.0), count))
        if len(set(frame[unit])) == 1:
            assert decision.mask[unit].all()
        alone = reduced(strategy, count, x[unit : unit + 1], **unit_of(places, unit))
        assert torch.equal(alone.mask[0], decision.mask[unit]) and torch.equal(alone.scores[0], decision.scores[unit])


def test_the_moving_part_stays():
    x = torch.zeros(1, 4, 9, 3) + torch.tensor([1.0, 0, 0])
    x[:, 2:, 4] = torch.tensor([0.0, 1, 0])  # place 4 changes once, in frame 2
    assert kept(reduced(sl.EVS(keep=10), 10, x.flatten(1, 2), (4, 3, 3))) == [[*range(9), 2 * 9 + 4]]


@pytest.mark.parametrize("keep", [0.1, 1, 3])
@pytest.mark.parametrize("grid", [None, (1, 3, 4)])
def test_stills_are_left_alone(keep, grid):
    assert reduced(sl.EVS(keep=keep), 2, torch.randn(2, 12, 4), grid).mask.all()
    one_frame = torch.zeros(2, 12, dtype=torch.long)
    assert reduced(sl.EVS(keep=keep), 2, torch.randn(2, 12, 4), frame=one_frame).mask.all()


def test_share_and_threshold():
    x, grid = video(1, 5, 2, 3, 1), (5, 2, 3)
    strategy = sl.EVS(keep=0.55)
    assert strategy.count(0, 30) == 16
    assert len(kept(reduced(strategy, 16, x, grid))[0]) == 16
    scores = plain_scores(x[0].double().tolist(), [i // 6 for i in range(30)], [i % 6 for i in range(30)])
    decision = reduced(sl.EVS(keep=0.55, threshold=0.1), 16, x, grid)
    assert kept(decision)[0] == [i for i, score in enumerate(scores) if score > 0.1]
    assert kept(reduced(sl.EVS(keep=0.55, threshold=5), 16, x, grid))[0] == list(range(6))
    assert len(kept(reduced(sl.EVS(keep=9, threshold=0.1), 9, x, grid))[0]) == 9  # a count outranks a threshold


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["random", "constant", "zero", "huge"])
def test_any_number_type_and_degenerate_features(dtype, kind):
    x = video(2, 3, 2, 2, 0, dtype)
    x = {"random": x, "constant": torch.ones_like(x), "zero": torch.zeros_like(x), "huge": x * 1000}[kind]
    for count in (1, 4, 7, 12):
        decision = reduced(sl.EVS(keep=count), count, x, (3, 2, 2))
        assert decision.scores.isfinite().all()
        assert [len(own) for own in kept(decision)] == [max(4, count)] * 2
    if kind == "constant":
        assert kept(reduced(sl.EVS(keep=6), 6, x, (3, 2, 2))) == [[0, 1, 2, 3, 4, 5]] * 2


@pytest.mark.parametrize("scope", ["row", "crop", "frame"])
def test_only_a_whole_video_can_be_compared(scope):
    with pytest.raises(sl.BudgetError, match=f"scope='{scope}' knows none, use 'image'"):
        sl.EVS(keep=0.5, scope=scope)


def test_defaults():
    strategy = sl.EVS(keep=0.25)
    assert (strategy.scope, strategy.own_positions) == ("image", "keep")
    assert sl.from_dict(strategy.to_dict()) == strategy


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_on_a_model_for_stills_nothing_changes(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    before = model(**inputs).logits
    for keep in (1.0, 0.3, 2):
        with sl.apply(model, "evs", keep=keep) as run:
            assert torch.equal(model(**inputs).logits, before)
        assert run.report.n_after == run.report.n_before


@pytest.mark.parametrize("own", [VideoLlava(), LlavaOnevision(), LlavaNextVideo(), Qwen3VL()], ids=str)
@pytest.mark.parametrize("keep", [2, 0.5, 0.75])
@torch.no_grad()
def test_on_videos_of_every_layout(tiny, own, keep):
    """Class tokens, a closing newline, frames apart: the first frame and these stay, and what changed most."""
    model, embeds = tiny(own, "sdpa"), []
    row = [4, "video:1", 6]
    inputs, (piece,) = make_prompts(model, own, [row]), make_pieces(model, own, row)
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: embeds.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    model(**inputs)
    hook.remove()
    x = embeds[0][torch.isin(inputs["input_ids"][0], torch.tensor([IMAGE, VIDEO]))].double().tolist()
    place = {token: (t, p) for t, (places, _, _) in enumerate(piece.crops) for p, token in enumerate(places)}
    frame, patch = zip(*(place.get(token, (1, -1)) for token in range(piece.tokens)), strict=True)
    scores = plain_scores(x, frame, patch)
    count = keep if isinstance(keep, int) else int(keep * piece.tokens)
    with sl.apply(model, "evs", keep=keep) as run:
        model(**inputs)
    assert run.report.stages[0].scores[0].tolist() == pytest.approx(scores, abs=1e-5)
    assert run.report.stages[0].kept[0].tolist() == top(scores, max(scores.count(3.0), count))
