"""What `generate` does that a reduced prefill must know of: drafted tokens that come with the prompt, masks made ahead.

Drafts belong to the answer: methods must not take them for the question's end, and they see what an answer sees.
"""

from collections.abc import Callable
from typing import Any

import torch

from seeless.core.frame import Running, named
from seeless.core.host import CACHE, cache_in
from seeless.core.masks import is_plain
from seeless.errors import InputError

BY_COLUMN = ("input_ids", "position_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


PROMPTS = ("inputs", "input_ids", "inputs_embeds", "attention_mask")  # of `generate`: as long as the prompt


def note_prompt(running: Running, below: Callable, args: tuple, kwargs: dict) -> Any:
    """Around `generate`: note how many tokens the conversation has up to the prompt's end."""
    given, outer = named(below, args, kwargs), running.prompt
    known = () if cache_in(given) is not None and given.get("attention_mask") is None else PROMPTS
    lengths = [given[name].shape[1] for name in known if isinstance(given.get(name), torch.Tensor)]
    running.prompt = max(lengths, default=None)
    try:
        return below(*args, **kwargs)
    finally:
        running.prompt = outer


def note_encoding(running: Running, below: Callable, args: tuple, kwargs: dict) -> Any:
    """Around what `generate` encodes pictures with: what that gives goes to the prefill alone, unless the caller has
    given a place for it."""
    running.encoding = named(below, args, kwargs)["model_kwargs"].get("mm_encoder_outputs") is None
    try:
        return below(*args, **kwargs)
    finally:
        running.encoding = False


def with_plain_mask(below: Callable, args: tuple, kwargs: dict) -> Any:
    """Around `prepare_inputs_for_generation`: keep the 2-D mask where it makes 4-D ones, for caches that can compile;
    those could not follow tokens that leave."""
    inputs, mask = below(*args, **kwargs), kwargs.get("attention_mask")
    if getattr(cache_in(inputs), "is_compileable", False) and is_plain(mask):
        return {**inputs, "attention_mask": mask}
    return inputs


def drafted(given: dict[str, Any], prompt: int | None) -> int:
    """How many tokens behind the prompt a forward brings along with it.

    Args:
        given: its arguments by name.
        prompt: tokens of the conversation up to the prompt's end, where `generate` runs.
    """
    ids, cache, mask = given.get("input_ids"), cache_in(given), given.get("attention_mask")
    if prompt is None or ids is None or cache is None:
        return 0
    total = int(cache.get_seq_length()) + ids.shape[1] if mask is None or mask.ndim != 2 else mask.shape[1]
    drafts = total - prompt
    return drafts if 0 < drafts < ids.shape[1] else 0


def apart(below: Callable, given: dict[str, Any], drafts: int) -> Any:
    """The model's output for the prompt first, and then for the drafted tokens on the prompt's cache, joined.

    Raises:
        InputError: attention maps are asked for, which have no common shape.
    """
    if given.get("output_attentions"):
        raise InputError("output_attentions does not go with assisted generation on fewer tokens; leave it out")
    cut = {name: given[name] for name in BY_COLUMN if isinstance(given.get(name), torch.Tensor)}
    plain = {name: value for name, value in given.items() if not isinstance(value, torch.Tensor | dict)}
    keep = given.get("logits_to_keep", 0)
    first = below(
        **{
            **given,
            **{name: value[..., :-drafts] for name, value in cut.items()},
            "logits_to_keep": max(1, keep - drafts) if keep else 0,
        }
    )
    later = {name: value[..., -drafts:] for name, value in cut.items() if name != "attention_mask"}
    if "attention_mask" in cut:
        later["attention_mask"] = cut["attention_mask"]
    output = below(**{**plain, **later, CACHE: cache_in(first), "logits_to_keep": 0})
    output.logits = torch.cat([first.logits, output.logits], 1)[:, -keep:]
    if output.get("hidden_states") is not None:
        pairs = zip(first.hidden_states, output.hidden_states, strict=True)
        output.hidden_states = tuple(torch.cat(pair, 1) for pair in pairs)
    return output
