"""VidCom2 against its formulas written with lists."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import seeless as sl
from fake_context import cosine, fake_context, kept, mean, top
from tinies import IMAGE, VIDEO, LlavaOnevision, Qwen3VL, VideoLlava, make_pieces
from tinies import make_inputs as make_prompts
from tiny_models import RAGGED, VARIANTS, make_inputs


def features(units, frames, size, seed, dtype=torch.float32, dim=5):
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(units, 1, 1, dim, generator=generator)
    own = torch.randn(units, frames, 1, dim, generator=generator) * torch.rand(units, frames, 1, 1, generator=generator)
    return (common + own + 0.3 * torch.randn(units, frames, size, dim, generator=generator)).flatten(1, 2).to(dtype)


def reduced(strategy, count, embeds, grid=None, **places):
    return strategy.reduce(fake_context(count, *embeds.shape[:2], grid=grid, layer=0, embeds=embeds, **places))


def plain_vidcom2(x, frame, count, temperature):
    """One unit, a list of vectors and of their frames: scores, tokens per frame and how clear those numbers are."""
    frames = sorted(set(frame))
    g_video = mean(x)
    scores, unique, sizes = [0.0] * len(x), [], []
    for t in frames:
        own = [i for i, number in enumerate(frame) if number == t]
        g_frame = mean([x[i] for i in own])
        sizes.append(len(own))
        unique.append(sum(-cosine(x[i], g_video) for i in own) / len(own))
        for i in own:
            scores[i] = -cosine(x[i], g_video) - cosine(x[i], g_frame)
    power = [math.exp((u - max(unique)) / temperature) for u in unique]
    share = [n * (1 + p / sum(power) - 1 / len(frames)) for n, p in zip(sizes, power, strict=True)]
    wanted = [count * s / sum(share) for s in share]
    counts = [min(n, math.floor(w)) for n, w in zip(sizes, wanted, strict=True)]
    left, clear = [w - c for w, c in zip(wanted, counts, strict=True)], 1.0
    for _ in range(count - sum(counts)):  # the one whose remainder is largest, again and again
        room = sorted((t for t in range(len(frames)) if counts[t] < sizes[t]), key=lambda t: -left[t])
        clear = min([clear, *(left[room[0]] - left[t] for t in room[1:2])])
        counts[room[0]] += 1
        left[room[0]] -= 1
    nearest_whole = min(abs(w - round(w)) for w in wanted)
    return scores, dict(zip(frames, counts, strict=True)), min(clear, nearest_whole)


def best_of_frames(scores, frame, counts):
    """Places of the `counts[t]` best tokens of every frame t."""
    found = []
    for t, count in counts.items():
        own = [i for i, number in enumerate(frame) if number == t]
        found += [own[i] for i in top([scores[i] for i in own], count)]
    return sorted(found)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 9), st.sampled_from([0.01, 0.1, 3]), st.integers(0, 9999))
@pytest.mark.parametrize("whole", ["few", "half", "most", "any"])
def test_scores_and_kept_tokens(whole, units, frames, size, temperature, seed):
    x, total = features(units, frames, size, seed), frames * size
    shares = {"few": 0.1, "half": 0.5, "most": 0.9, "any": torch.rand(1, generator=torch.Generator().manual_seed(seed))}
    count = min(total, max(1, int(total * shares[whole])))
    strategy, grid = sl.VidCom2(keep=count, temperature=temperature), (frames, 1, size)
    decision = reduced(strategy, count, x, grid)
    assert [len(own) for own in kept(decision)] == [count] * units
    frame = [i // size for i in range(total)]
    for unit in range(units):
        alone = reduced(strategy, count, x[unit : unit + 1], grid)
        assert torch.equal(alone.mask[0], decision.mask[unit]) and torch.equal(alone.scores[0], decision.scores[unit])
        scores, counts, clear = plain_vidcom2(x[unit].double().tolist(), frame, count, temperature)
        assert torch.allclose(decision.scores[unit].double(), torch.tensor(scores, dtype=torch.float64), atol=1e-5)
        found = decision.scores[unit].view(frames, size).sort(1).values
        apart = size == 1 or found.diff(dim=1).min() > 1e-5  # closer ones tie
        if apart and (frames == 1 or clear > 1e-3):  # float32 may round a remainder the other way
            assert kept(decision)[unit] == best_of_frames(decision.scores[unit].tolist(), frame, counts)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.sampled_from([0.01, 0.1, 3]), st.integers(0, 9999), st.data())
def test_frames_of_unequal_size(units, tokens, temperature, seed, data):
    """Any numbers of tokens, in any order, some frames empty; units of one group may have different frames."""
    x = features(units, 1, tokens, seed, torch.float64)
    numbers = st.one_of(st.just([-1] * tokens), st.lists(st.integers(0, 5), min_size=tokens, max_size=tokens))
    frame = [data.draw(numbers) for _ in range(units)]
    count = data.draw(st.integers(1, tokens))
    strategy = sl.VidCom2(keep=count, temperature=temperature)
    decision = reduced(strategy, count, x, frame=torch.tensor(frame))
    assert [len(own) for own in kept(decision)] == [count] * units
    for unit in range(units):
        scores, counts, clear = plain_vidcom2(x[unit].tolist(), frame[unit], count, temperature)
        assert decision.scores[unit].tolist() == pytest.approx(scores, abs=1e-12)
        if len(counts) == 1 or clear > 1e-9:
            assert kept(decision)[unit] == best_of_frames(decision.scores[unit].tolist(), frame[unit], counts)


def one_frame_apart(frames, odd, size):
    """All frames look one way, and one another way."""
    x = torch.zeros(1, frames, size, 3)
    x[..., 0] = 1
    x[:, odd] = torch.tensor([0.0, 1, 0])
    x[..., 2] = torch.linspace(0, 0.1, size)
    return x.flatten(1, 2)


def test_the_frame_that_stands_out_keeps_more():
    x = one_frame_apart(4, 2, 9)
    decision = reduced(sl.VidCom2(keep=12), 12, x, (4, 3, 3))
    per_frame = decision.mask.view(4, 9).sum(1).tolist()
    assert per_frame[2] == 5 and sorted(per_frame) == [2, 2, 3, 5]  # 3 * (2 - 1/4) = 5.25, the others 3 * 3/4


def test_a_full_frame_gives_what_it_has_no_room_for_to_the_others():
    x = one_frame_apart(3, 0, 4)
    decision = reduced(sl.VidCom2(keep=9), 9, x, (3, 2, 2))
    assert decision.mask.view(3, 4).sum(1).tolist() == [4, 3, 2]  # 5, 2 and 2 wanted


@pytest.mark.parametrize("grid", [None, (1, 2, 5)])
def test_a_still_is_one_frame(grid):
    x = features(2, 1, 10, 3)
    decision = reduced(sl.VidCom2(keep=4), 4, x, grid)
    for unit in range(2):
        vectors = x[unit].double().tolist()
        assert kept(decision)[unit] == top([-cosine(v, mean(vectors)) for v in vectors], 4)


def test_a_newline_that_closes_the_video_is_one_more_token_of_the_first_frame():
    x = one_frame_apart(3, 0, 4)
    plain = reduced(sl.VidCom2(keep=8), 8, x, (3, 2, 2))  # 8/12 * (20/3, 8/3, 8/3), but frame 0 has only 4
    frame = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 0]])
    more = reduced(sl.VidCom2(keep=8), 8, torch.cat([x, x[:, :1]], 1), frame=frame)  # 24/41 * (25/3, 8/3, 8/3)
    counts = [int(more.mask[frame == t].sum()) for t in range(3)]
    assert plain.mask.view(3, 4).sum(1).tolist() == [4, 2, 2] and counts == [5, 2, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["random", "constant", "zero", "huge"])
@pytest.mark.parametrize("frames", [1, 3])
def test_any_number_type_and_degenerate_features(dtype, kind, frames):
    x = features(2, frames, 4, 0, dtype)
    x = {"random": x, "constant": torch.ones_like(x), "zero": torch.zeros_like(x), "huge": x * 1000}[kind]
    for count in {1, 2, 5, 4 * frames} - {5 if frames == 1 else 0}:
        decision = reduced(sl.VidCom2(keep=count), count, x, (frames, 2, 2))
        assert decision.scores.isfinite().all()
        assert [len(own) for own in kept(decision)] == [count] * 2
    if kind in ("constant", "zero") and frames == 3:
        decision = reduced(sl.VidCom2(keep=7), 7, x, (3, 2, 2))
        assert kept(decision) == [[0, 1, 2, 4, 5, 8, 9]] * 2


def test_one_token():
    decision = reduced(sl.VidCom2(keep=1), 1, torch.randn(2, 1, 3), (1, 1, 1))
    assert kept(decision) == [[0], [0]]


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan, "1", True])
def test_refused_temperatures(temperature):
    with pytest.raises(sl.BudgetError, match=r"temperature=.* is not possible; (give a number|it takes number)"):
        sl.VidCom2(keep=0.5, temperature=temperature)


def test_other_knobs():
    with pytest.raises(sl.BudgetError, match="takes no threshold"):
        sl.VidCom2(keep=0.5, threshold=0.1)
    with pytest.raises(sl.BudgetError, match="scope='row' joins several, use 'image'"):
        sl.VidCom2(keep=0.5, scope="row")
    strategy = sl.VidCom2(keep=0.25)
    assert strategy.count(0, 99) == 24 and strategy.scope == "image"
    assert sl.from_dict(strategy.to_dict()) == strategy


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@torch.no_grad()
def test_on_a_model(tiny, variant):
    model = tiny(variant, "sdpa")
    inputs = make_inputs(model, variant, RAGGED)
    with sl.apply(model, "vidcom2", keep=5) as run:
        model(**inputs)
        assert run.report.n_after == [5, 10, 0, 5]
        together = [k.tolist() for k in run.report.stages[0].kept]
        for row, parts in enumerate(RAGGED):
            model(**make_inputs(model, variant, [parts]))
            if run.report.n_before != [0] and row != 2:
                assert run.report.stages[0].kept[0].tolist() == together[row]


@pytest.mark.parametrize("own", [VideoLlava(), LlavaOnevision(), Qwen3VL()], ids=str)
@pytest.mark.parametrize("keep", [9, 0.5])
@torch.no_grad()
def test_on_videos_of_every_layout(tiny, own, keep):
    """Class tokens in every frame, a newline that counts for the first, frames apart."""
    model, embeds = tiny(own, "sdpa"), []
    row = [4, "video:1", 6]
    inputs, (piece,) = make_prompts(model, own, [row]), make_pieces(model, own, row)
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: embeds.append(kwargs["inputs_embeds"][0]), with_kwargs=True
    )
    model(**inputs)
    hook.remove()
    x = embeds[0][torch.isin(inputs["input_ids"][0], torch.tensor([IMAGE, VIDEO]))].double().tolist()
    size = len(piece.crops[0][0]) + (own.name == "video_llava")
    frame = [i // size if i < size * len(piece.crops) else 0 for i in range(piece.tokens)]
    assert all({frame[i] for i in places} == {t} for t, (places, _, _) in enumerate(piece.crops))
    count = keep if isinstance(keep, int) else int(keep * piece.tokens)
    scores, counts, clear = plain_vidcom2(x, frame, count, 0.5)
    assert clear > 1e-3
    with sl.apply(model, "vidcom2", keep=keep, temperature=0.5) as run:
        model(**inputs)
    assert run.report.stages[0].scores[0].tolist() == pytest.approx(scores, abs=1e-5)
    assert run.report.stages[0].kept[0].tolist() == best_of_frames(scores, frame, counts)
