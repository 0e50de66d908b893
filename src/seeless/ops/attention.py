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
    query: torch.Tensor, keys: torch.Tensor, scaling: float, visible: torch.Tensor | None, columns: torch.Tensor
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

    Returns:
        `[batch, heads, queries, visual]`.
    """
    batch, heads, queries, dim = query.shape
    kv_heads = keys.shape[1]
    grouped = query.reshape(batch, kv_heads, heads // kv_heads * queries, dim)
    scores = (grouped @ keys.transpose(-1, -2)) * scaling
    scores = scores.view(batch, heads, queries, -1)
    if visible is not None:
        scores = scores.masked_fill(~visible[:, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype).float()
    return weights.gather(3, columns[:, None, None].expand(-1, heads, queries, -1))
