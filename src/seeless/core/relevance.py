"""How much patches have to do with the question: by the CLIP model the vision tower came from, or by embeddings."""

import re
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from seeless.core.family import ModelView
from seeless.errors import InputError, UnsupportedModel

SHORT_ANSWER = "Answer the question using a single word or phrase."
ANSWER_BEGINS = re.compile(r"\bassistant:|\n(?:assistant|model)\b|\[/INST\]", re.IGNORECASE)


def check_clip(view: ModelView, clip: str | None) -> str | None:
    """`clip`, if the tower is a CLIP tower whose own text tower it can name; None if the tower is none.

    Raises:
        UnsupportedModel: the tower is one and no CLIP model is named, or the other way round.
    """
    if view.config.vision_config.model_type != "clip_vision_model" or not view.family.projected:
        if clip is None:
            return None
        raise UnsupportedModel(
            "clip= is for models with a CLIP tower, but the vision tower of this model is no CLIP; leave it out, and "
            "tokens are compared with the embeddings of the question"
        )
    if len(view.tapped_layers("image")) > 1:
        raise UnsupportedModel(
            "this strategy compares patches with the question by CLIP's text tower, but this model's projector takes "
            "the outputs of several tower layers; use a strategy that reads no text tower"
        )
    if clip is None:
        raise UnsupportedModel(
            "this strategy compares patches with the question by CLIP's text tower, which vision-language checkpoints "
            "do not carry; pass clip=, the folder or hub name of the CLIP model the tower came from "
            "(openai/clip-vit-large-patch14-336 for most)"
        )
    return clip


@cache
def load_clip(clip: str) -> tuple[Any, Any]:
    """The text tower and both projections of a CLIP model, float32, and its tokenizer; once per process.

    Raises:
        UnsupportedModel: there is no such model.
    """
    from transformers import AutoConfig, AutoTokenizer, CLIPModel

    try:
        if (kind := AutoConfig.from_pretrained(clip).model_type) != "clip":
            raise ValueError(f"it is of type {kind!r}")
        model = CLIPModel.from_pretrained(clip, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(clip)
    except (OSError, ValueError) as error:
        raise UnsupportedModel(
            f"clip={clip!r} cannot be loaded as a CLIP model with its tokenizer ({error}); "
            "give a folder or hub name that transformers' CLIPModel and AutoTokenizer load"
        ) from error
    model.vision_model.encoder = nn.Identity()  # the model's own tower has done its work
    return model.requires_grad_(False), tokenizer


def clip_of(view: ModelView, clip: str | None) -> tuple[Any, Any]:
    """What `load_clip` gives for a tower that is a CLIP.

    Raises:
        UnsupportedModel: the tower is none, or `check_clip` or `load_clip` refuse.
    """
    if (named := check_clip(view, clip)) is None:
        raise UnsupportedModel(
            "the vision tower of this model is no CLIP, so its patches have no place in CLIP's space; compare "
            "`ctx.embeds` with `ctx.token_embeds`"
        )
    return load_clip(named)


@cache
def load_tokenizer(name: str, undone: str, instead: str) -> Any:
    """The tokenizer of a vision-language model, by the name it was loaded from.

    Args:
        undone, instead: what cannot be done without, and what can be done, for the message.

    Raises:
        InputError: it has none.
    """
    from transformers import AutoTokenizer

    if not name:
        raise InputError(f"{undone}, because the model was loaded from no checkpoint with a tokenizer; {instead}")
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{undone}, because {name!r} has no tokenizer ({error}); {instead}") from error


def read_question(name: str, ids: list[int]) -> str:
    """The question among the tokens after the image.

    Decoded without special tokens and cut where the answer begins: at "ASSISTANT:" (in any case), at a line that begins
    with "assistant" or "model", or at "[/INST]".
    """
    undone, instead = "the question cannot be read from the prompt", "give the text with question="
    return ANSWER_BEGINS.split(load_tokenizer(name, undone, instead).decode(ids, skip_special_tokens=True))[0]


def without_short_answer(question: str) -> str:
    """The question without the usual demand for a short answer at its end.

    Raises:
        InputError: nothing is left.
    """
    question = question.strip().removesuffix(SHORT_ANSWER).strip()
    if not question:
        raise InputError("there is no question to compare the image with; give the text with question=")
    return question


def segments(ids: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A text in pieces of `length` tokens: ids and mask `[segments, length]`, zero where the last is shorter."""
    count = -(-len(ids) // length)
    cut = torch.zeros(2, count * length, dtype=torch.long)
    cut[0, : len(ids)], cut[1, : len(ids)] = torch.tensor(ids), 1
    tokens, mask = cut.view(2, count, length)
    return tokens, mask


def clip_patches(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Patches in CLIP's common space: its tower's last norm and its projection.

    Args:
        model: from `load_clip`.
        features: `[units, visual, width]`, hidden states of the tower's patches.

    Returns:
        `[units, visual, dim]`, float32.

    Raises:
        UnsupportedModel: another CLIP's tower made them.
    """
    if (width := model.config.vision_config.hidden_size) != features.shape[-1]:
        raise UnsupportedModel(
            f"the tower of clip={model.config._name_or_path!r} is {width} wide, but this model's is "
            f"{features.shape[-1]}; name the CLIP model this tower came from"
        )
    model = model.to(features.device)
    return model.visual_projection(model.vision_model.post_layernorm(features.float()))


def _read(model: Any, tokenizer: Any, text: str, device: torch.device) -> tuple[Any, int]:
    """What the text tower gives for the segments of a text, and how many tokens that has."""
    ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
    tokens, mask = segments(ids, model.config.text_config.max_position_embeddings)
    return model.to(device).text_model(tokens.to(device), mask.to(device)), len(ids)


def clip_pooled(model: Any, tokenizer: Any, text: str, device: torch.device) -> torch.Tensor:
    """A text in CLIP's common space, `[segments, dim]`, float32: what stands at the end of each segment.

    Args:
        model, tokenizer: from `load_clip`.
    """
    return model.text_projection(_read(model, tokenizer, text, device)[0].pooler_output)


def clip_tokens(model: Any, tokenizer: Any, text: str, device: torch.device, padding: bool) -> torch.Tensor:
    """The tokens of a text in CLIP's common space, `[words, dim]`, float32, first and last token included.

    Args:
        model, tokenizer: from `load_clip`.
        padding: with what stands behind the text, up to as many tokens as the text tower takes.
    """
    output, count = _read(model, tokenizer, text, device)
    words = output.last_hidden_state.flatten(0, 1)
    return model.text_projection(words if padding else words[:count])


def text_similarity(model: Any, tokenizer: Any, features: torch.Tensor, questions: list[str]) -> torch.Tensor:
    """Cosine of each patch to its unit's question in CLIP's common space, mean over the question's segments.

    Args:
        model, tokenizer: from `load_clip`.
        features: `[units, visual, dim]`, hidden states of the tower's patches.
        questions: one per unit.

    Returns:
        `[units, visual]`, float32.
    """
    patches = F.normalize(clip_patches(model, features), dim=-1)
    found = {
        question: F.normalize(
            clip_pooled(model, tokenizer, without_short_answer(question), features.device), dim=-1
        ).mean(0)
        for question in dict.fromkeys(questions)
    }
    return torch.einsum("uvd,ud->uv", patches, torch.stack([found[question] for question in questions]))


def embedding_similarity(view: ModelView, embeds: torch.Tensor, questions: list[str]) -> torch.Tensor:
    """Cosine of each visual token to its unit's question in the space that enters the decoder, mean over its tokens.

    Args:
        embeds: `[units, visual, dim]`, embeddings of the visual tokens.
        questions: one per unit.

    Returns:
        `[units, visual]`, float32 at least.
    """
    undone, instead = "the question cannot be turned into tokens", "load the model from a checkpoint with its tokenizer"
    tokenizer, table = load_tokenizer(view.config._name_or_path, undone, instead), view.base.get_input_embeddings()
    found = {}
    for question in dict.fromkeys(questions):
        ids = tokenizer(without_short_answer(question), add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        words = table(ids.to(table.weight.device)).detach().to(embeds.device)
        found[question] = F.normalize(words.to(torch.promote_types(words.dtype, torch.float32)), dim=-1).mean(0)
    tokens = F.normalize(embeds.to(torch.promote_types(embeds.dtype, torch.float32)), dim=-1)
    return torch.einsum("uvd,ud->uv", tokens, torch.stack([found[question] for question in questions]))
