"""Attention rows from queries and keys, without ever building the full map."""

import torch


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `x` `[batch, heads, seq, dim]` with `cos`/`sin` `[batch or 1, seq, rotary dim]`.

    Su et al., "RoFormer", eq. 34, in the half-split layout of `transformers`. Dimensions past the rotary ones pass
    through unchanged.
    """
    cos, sin = cos[:, None], sin[:, None]
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def attention_rows(
    query: torch.Tensor,
    keys: torch.Tensor,
    scaling: float,
    visible: torch.Tensor | None,
    columns: torch.Tensor,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax attention of a few query rows, over all keys, read at some columns.

    The product is in the dtype of the inputs, the softmax in float32, the result in float32 after one round trip
    through the model's dtype: what `transformers`' eager attention gives for these rows.

    Args:
        query: `[batch, heads, queries, dim]`.
        keys: `[batch, kv_heads, seq, dim]`; query heads share key heads in order (GQA).
        scaling: factor on the product, usually `dim ** -0.5`.
        visible: `[batch, queries, seq]` bool, True = this query sees this key; None = all.
        columns: `[batch, visual]`, the keys to read.
        softcap: bound of the scores, `cap * tanh(score / cap)` (Gemma 2); None = unbounded.
        sinks: `[heads]`, one more score in every softmax, which no key has (gpt-oss); None = none.

    Returns:
        `[batch, heads, queries, visual]`.
    """
    weights = _weights(query, keys, scaling, None if visible is None else visible[:, None], softcap, sinks)
    return weights.gather(3, columns[:, None, None].expand(-1, *weights.shape[1:3], -1))


def _weights(
    query: torch.Tensor,
    keys: torch.Tensor,
    scaling: float,
    visible: torch.Tensor | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """`[batch, heads, queries, seq]`, float32; `visible` may be broadcast to that shape."""
    batch, heads, queries, dim = query.shape
    kv_heads = keys.shape[1]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * queries, dim)
    scores = (grouped @ keys.transpose(-1, -2)) * scaling
    scores = scores.view(batch, heads, queries, -1)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if visible is not None:
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat([scores, sinks.to(scores.dtype)[:, None, None].expand(batch, -1, queries, 1)], -1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype).float()
    return weights if sinks is None else weights[..., :-1]


def received_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    scaling: float,
    seen: torch.Tensor | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    entries_at_once: int = 2**21,
) -> torch.Tensor:
    """Attention that every key receives, averaged over the queries; the full map is never held.

    Args:
        query: `[batch, heads, seq, dim]`; every query sees every key (a vision tower).
        keys: `[batch, kv_heads, seq, dim]`.
        scaling, softcap, sinks: as for `attention_rows`.
        seen: `[batch, seq]` bool, False = padding, neither asked nor seen; None = all.
        entries_at_once: of the attention map to hold, about.

    Returns:
        `[batch, heads, seq]`, float32; sums to one over the keys, if there are no sinks.
    """
    batch, heads, length, _ = query.shape
    total = torch.zeros(batch, heads, length, device=query.device)
    visible = None if seen is None else seen[:, None, None]
    for some in torch.arange(length, device=query.device).split(max(1, entries_at_once // (batch * heads * length))):
        weights = _weights(query[:, :, some], keys, scaling, visible, softcap, sinks)
        if seen is not None:
            weights = weights * seen[:, None, some, None]
        total += weights.sum(2)
    return total / (length if seen is None else seen.sum(1)[:, None, None])
