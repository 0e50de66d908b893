"""What to say of a `KeyError` in a guest that looked for something of the framework's."""

from typing import Any

from seeless.errors import InputError


class MissingEntry(InputError, KeyError):
    """A guest looked for something of the framework's that is not there, or under another name."""

    __str__ = Exception.__str__  # a KeyError shows its key alone


def missing_entry(error: KeyError, context: dict[str, Any], layer: int) -> str | None:
    """What is missing, why, and what there is; None if the key has nothing to do with the framework.

    Args:
        context: what the guest was given by name.
        layer: the cut is before it.
    """
    key = error.args[0] if error.args else None
    if isinstance(key, bool) or not isinstance(key, int | str):
        return None
    if isinstance(key, str):
        if key in context:
            return None
        return f"the context has no {key!r} before layer {layer}; it has {', '.join(sorted(context))}. {_why(key)}"
    told = context.get("layer_idx")
    if key != told:
        return None
    if told == context.get("step") and told != layer - 1:
        return f"it has nothing for {key}: to a strategy of this shape layer_idx is the number of the cut, from 0"
    return (
        f"it has nothing for {key}: layer_idx is the layer whose attention is read, K - 1, so the cut of "
        f"prune_layer={layer} asks for {layer - 1}. Name K - 1, not K, or use ctx['score_layer'] + 1"
    )


def _why(key: str) -> str:
    """Where an entry comes from that is not always there."""
    reasons = {
        "z_ref": "z_ref is there once ref_layers names a layer before the cut",
        "grid_hw": "grid_hw is there while the visual tokens are complete and fill a grid",
        "grid_thw": "grid_thw is there while the visual tokens are complete and fill a grid",
        "pruned_token_scores": "pruned_token_scores is there after the first cut",
        "prior_attention": "prior_attention needs a token after the image that is blind to the question",
        "prior_attentions": "prior_attentions needs a token after the image that is blind to the question",
    }
    return reasons.get(key, "An entry without a value is left out; use .get(), or put it there in prepare")
