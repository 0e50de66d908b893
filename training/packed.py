"""Many questions after one picture, in one pass through a Llama: what trains the decoder of `reader`.

The picture stands first and is read once; each question sees the picture and itself, never another question, at the
positions it would have alone. That is what the model does with one question, see tests/reader/test_packed_training.py.

Two things are asked of training that a plain pass does not give:

- questions may see the picture only from some layer on, or until then another picture of the batch in its place, so
  that answers are read off the picture in the middle and late layers, as in large models, and not once and for all in
  the first two;
- attention from the last word of a question is returned, so that it can be taught where to look in every layer.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import LlamaModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb


@dataclass(frozen=True)
class Packed:
    """A batch of pictures with questions.

    Args:
        prefix: embeddings `[batch, before + visual, width]`, of the words before the picture and of the picture.
        places: their positions `[batch, before + visual]`.
        before: how many words stand before the picture.
        questions: embeddings `[batch, questions, words, width]`, padded on the right.
        start: the position of a question's first word.
        last: which word of each question `[batch, questions]` is the last one of the prompt.
        first: the layer `[batch]` from which on questions see their picture.
        swapped: whether they see the next picture of the batch until then `[batch]`; else none.
    """

    prefix: torch.Tensor
    places: torch.Tensor
    before: int
    questions: torch.Tensor
    start: int
    last: torch.Tensor
    first: torch.Tensor
    swapped: torch.Tensor


def answer(llama: LlamaModel, packed: Packed) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Hidden states `[batch, questions, words, width]` behind the last norm, and for each layer the log of the shares
    `[batch, questions, visual]` of attention that the visual tokens get from the last word of each prompt, mean of
    heads."""
    batch, questions, words, width = packed.questions.shape
    rotary = llama.rotary_emb
    at_prefix = rotary(packed.prefix, packed.places)
    at_words = rotary(packed.questions[:, 0], torch.arange(words)[None] + packed.start)
    causal = torch.full((words, words), float("-inf")).triu(1)
    prefix_causal = torch.full((packed.prefix.shape[1],) * 2, float("-inf")).triu(1)
    unseen = torch.zeros(batch, 1, 1, packed.prefix.shape[1])
    unseen[..., packed.before :] = float("-inf")
    picture, text, looks = packed.prefix, packed.questions.flatten(1, 2), []
    for depth, layer in enumerate(llama.layers):
        q, k, v = _heads(layer, picture)
        q, k = apply_rotary_pos_emb(q, k, *at_prefix)
        tq, tk, tv = _heads(layer, text)
        heads, size = tq.shape[1], tq.shape[-1]
        tq, tk, tv = (x.view(batch, heads, questions, words, size) for x in (tq, tk, tv))
        cos, sin = (x[:, None] for x in at_words)
        tq, tk = apply_rotary_pos_emb(tq, tk, cos, sin)
        early = depth < packed.first
        own = (tq @ tk.transpose(-1, -2) * layer.self_attn.scaling).float() + causal
        looks.append(_look(tq, k, own, packed, layer.self_attn.scaling))
        source = torch.where(early & packed.swapped, (torch.arange(batch) + 1) % batch, torch.arange(batch))
        seen = (tq.flatten(2, 3) @ k[source].transpose(-1, -2) * layer.self_attn.scaling).float()
        seen = seen + torch.where((early & ~packed.swapped)[:, None, None, None], unseen, 0.0)
        weights = torch.softmax(torch.cat([seen.view(*own.shape[:-1], -1), own], -1), -1).to(tv.dtype)
        of_picture, of_text = weights.split([k.shape[2], words], -1)
        mixed = (of_picture.flatten(2, 3) @ v[source]).view_as(tv) + of_text @ tv
        text = _rest(layer, text, mixed.flatten(2, 3))
        if depth + 1 < len(llama.layers):
            scores = q @ k.transpose(-1, -2) * layer.self_attn.scaling
            weights = torch.softmax(scores + prefix_causal.to(scores.dtype), -1)
            picture = _rest(layer, picture, weights @ v)
    return llama.norm(text).view(batch, questions, words, width), looks


def _heads(layer: nn.Module, hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    shape = (*hidden.shape[:2], -1, attention.head_dim)
    return tuple(p(normed).view(shape).transpose(1, 2) for p in (attention.q_proj, attention.k_proj, attention.v_proj))


def _rest(layer: nn.Module, hidden: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
    """What a layer does behind its heads; `mixed` `[batch, heads, tokens, size]`."""
    hidden = hidden + layer.self_attn.o_proj(mixed.transpose(1, 2).flatten(2))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _look(tq: torch.Tensor, k: torch.Tensor, own: torch.Tensor, packed: Packed, scaling: float) -> torch.Tensor:
    """Log of the share of attention on each visual token, always of the true picture."""
    index = packed.last[:, None, :, None, None]
    last = tq.gather(3, index.expand(-1, tq.shape[1], -1, 1, tq.shape[-1]))[:, :, :, 0]
    rest = own.gather(3, index.expand(-1, tq.shape[1], -1, 1, own.shape[-1]))[:, :, :, 0]
    scores = (last @ k.transpose(-1, -2) * scaling).float()
    share = torch.softmax(torch.cat([scores, rest], -1), -1).mean(1)
    visual = share[..., packed.before : k.shape[2]]
    return (visual + 1e-9).log() - (visual.sum(-1, keepdim=True) + 1e-9).log()
