"""What guests read of `attention` against the stock model's own eager maps: whole rows and columns, padded batches."""

import guests
import pytest
import torch
from matrix import PLACEHOLDERS

import seeless as sl
from seeless.vtr import VTR_REGISTRY, VTRConfig
from tinies import RAGGED, RAGGED_VIDEO, TINIES, make_inputs

NAMES = ("llava-llama-mha", "llava-mistral-gqa", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl", "video_llava")
FAMILIES = [(own, kind) for own in TINIES if own.name in NAMES for kind in own.kinds]
QWEN = [(own, kind) for own, kind in FAMILIES if own.name.startswith("qwen")]
ROWS = {"image": RAGGED, "video": RAGGED_VIDEO}


class Reader(guests.PruningStrategy):
    """Notes the whole map at every cut, and keeps every other token."""

    found: list = []

    def compute_scores(self, attention, image_token_range, config, **ctx):
        start, end = image_token_range
        dense = attention.dense()
        self.found.append((ctx["layer_idx"], image_token_range, dense, attention[0, :, end:, start:end]))
        assert torch.allclose(attention[:, :, -1], dense[:, :, -1], atol=1e-6)
        return torch.arange(end - start) % 2 + torch.arange(end - start) / 1000


@pytest.fixture
def reader():
    VTR_REGISTRY["reader"] = Reader
    Reader.found = []
    yield Reader
    del VTR_REGISTRY["reader"]


def order_of(ids, real, gone=()):
    """Columns as guests see them: text before the last visual token, the visual tokens, the text after."""
    columns = [c for c in real if c not in gone]
    visual = [c for c in columns if int(ids[c]) in PLACEHOLDERS]
    text = [c for c in columns if int(ids[c]) not in PLACEHOLDERS]
    return [c for c in text if c < visual[-1]] + visual + [c for c in text if c > visual[-1]], visual


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("own", "kind"), FAMILIES, ids=str)
@torch.no_grad()
def test_whole_maps(reader, own, kind, dtype, backend):
    """At the first cut every number of the stock model's map of that layer, row by row of a padded batch."""
    untouched, model = own.build("eager", dtype), own.build(backend, dtype)
    rows = ROWS[kind] if dtype is torch.float32 else ROWS[kind][:1]  # padding in float64 is nan in the stock model
    inputs = make_inputs(model, own, rows)
    maps = untouched(**inputs, output_attentions=True, use_cache=False).attentions
    with sl.apply(model, VTRConfig(strategy="reader", prune_layer=3)):
        model(**inputs)
    asked = list(in_turn(inputs, range(len(rows)), reader))
    assert sorted(asked) == [i for i, row in enumerate(rows) if any(isinstance(part, str) for part in row)]
    for row, (layer, (start, end), dense, part) in zip(asked, reader.found, strict=True):
        real = inputs["attention_mask"][row].nonzero()[:, 0].tolist()
        order, visual = order_of(inputs["input_ids"][row], real)
        want = maps[2][row][:, order][:, :, order]
        assert layer == 2 and order[start:end] == visual
        assert dense.dtype == dtype and dense.shape == (1, *want.shape)
        assert (dense[0] - want).abs().max() < 1e-5
        assert (part - want[:, end:, start:end]).abs().max() < 1e-5
        assert (dense.sum(-1) - 1).abs().max() < 1e-5  # all of the row is there


def in_turn(inputs, rows, reader):
    """The rows in the order in which the guest was asked: by length and range."""
    left = [row for row in rows if torch.isin(inputs["input_ids"][row], torch.tensor(PLACEHOLDERS)).any()]
    for _, (start, end), dense, _ in reader.found:
        for row in left:
            real = inputs["attention_mask"][row].nonzero()[:, 0].tolist()
            order, visual = order_of(inputs["input_ids"][row], real)
            if len(order) == dense.shape[-1] and order[start:end] == visual:
                left.remove(row)
                yield row
                break


@pytest.mark.parametrize(("own", "kind"), FAMILIES, ids=str)
@torch.no_grad()
def test_maps_after_a_cut(reader, own, kind):
    """At the second cut the map of the shorter sequence: that of the stock model with the dropped keys forbidden."""
    from oracle import MaskOracle, turn_of

    untouched, model = own.build("eager"), own.build("sdpa")
    inputs = make_inputs(model, own, ROWS[kind][:1])
    with sl.apply(model, VTRConfig(strategy="reader", prune_layer=[2, 4], keep_ratio=0.5)) as run:
        model(**inputs)
    turn = turn_of(run.report, inputs["input_ids"], PLACEHOLDERS)
    turn.report.stages[:] = turn.report.stages[:1]
    with MaskOracle(untouched, run.strategies, [turn], inputs["attention_mask"]):
        maps = untouched(**inputs, output_attentions=True, use_cache=False).attentions
    kept = turn.columns[0][turn.report.stages[0].kept[0]].tolist()
    gone = set(turn.columns[0].tolist()) - set(kept)
    order, _ = order_of(inputs["input_ids"][0], range(inputs["input_ids"].shape[1]), gone)
    layer, _, dense, _ = reader.found[1]
    assert layer == 3 and (dense[0] - maps[3][0][:, order][:, :, order]).abs().max() < 1e-5


@pytest.mark.parametrize(("own", "kind"), QWEN, ids=str)
@torch.no_grad()
def test_as_released_rows_see_everything(reader, own, kind):
    """Softmax over all tokens of the row, later ones too; worked out from the causal and the scores' ratios."""
    model = own.build("sdpa")
    inputs = make_inputs(model, own, ROWS[kind])
    with sl.apply(model, VTRConfig(strategy="reader", prune_layer=3)):
        model(**inputs)
    causal, reader.found = reader.found, []
    seen = {}
    hook = model.model.language_model.layers[2].self_attn.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with sl.apply(model, VTRConfig(strategy="reader", prune_layer=3, as_released=True)):
        model(**inputs)
    hook.remove()
    attention, hidden = model.model.language_model.layers[2].self_attn, seen["hidden_states"]
    query, keys = projected(attention, hidden, *seen["position_embeddings"])
    rows = list(in_turn(inputs, range(len(inputs["input_ids"])), reader))
    assert len(rows) == len(reader.found) == len(causal)
    for row, (_, (_, end), dense, _), (_, _, below, _) in zip(rows, reader.found, causal, strict=True):
        real = inputs["attention_mask"][row].nonzero()[:, 0].tolist()
        order, _ = order_of(inputs["input_ids"][row], real)
        scores = query[row][:, order] @ keys[row][:, order].mT * attention.scaling
        assert (dense[0] - scores.float().softmax(-1)).abs().max() < 1e-5
        assert (dense[..., -1, :] - below[..., -1, :]).abs().max() < 1e-6  # the last row sees all anyway
        assert dense[0, :, end, end + 1 :].min() > 0 and not below[0, :, end, end + 1 :].any()


def projected(attention, hidden, cos, sin):
    """Rotated queries and keys `[batch, heads, seq, dim]`, keys repeated; torch's own formula, no code of seeless."""
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    query, keys = attention.q_proj(hidden).view(shape), attention.k_proj(hidden).view(shape)
    if hasattr(attention, "q_norm"):
        query, keys = attention.q_norm(query), attention.k_norm(keys)

    def turned(x):
        half = x.shape[-1] // 2
        return x * cos[:, :, None] + torch.cat([-x[..., half:], x[..., :half]], -1) * sin[:, :, None]

    query, keys = turned(query).transpose(1, 2), turned(keys).transpose(1, 2)
    return query, keys.repeat_interleave(query.shape[1] // keys.shape[1], 1)


@torch.no_grad()
def test_only_rows_that_are_read_are_computed(monkeypatch):
    """Nothing of seq x seq elements per head comes into being when a guest reads a few rows."""
    from seeless.core import attention

    asked = []
    real = attention.attention_rows

    def spy(query, *args):
        asked.append(query.shape[2])
        return real(query, *args)

    monkeypatch.setattr(attention, "attention_rows", spy)
    own = next(own for own in TINIES if own.name == "llava-llama-mha")
    model = own.build("sdpa")
    with sl.apply(model, VTRConfig(strategy="mymethod", prune_layer=2, keep_ratio=0.5), self_check=False):
        model(**make_inputs(model, own, [[5, "image:0", 9]]))
    assert asked == [1, 1]  # to see what heads there are, and the row itself
