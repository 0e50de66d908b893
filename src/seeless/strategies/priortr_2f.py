"""PriorTR with two forwards: what the model looks at without a question comes from a prompt that has none."""

from dataclasses import field
from typing import Any, Literal

import torch

from seeless.context import Context, Queries
from seeless.errors import BudgetError, InputError, UnsupportedModel
from seeless.ops.prior import prior_corrected
from seeless.registry import register
from seeless.strategy import LayerStrategy, Past


@register("priortr_2f")
class PriorTR2F(LayerStrategy):
    """Keep the tokens that the instruction looks at more than a prompt without it does.

    Formula: score = P ln((P + e) / (Q + e)), e = 1e-10; P is the attention of the instruction in layer `layer - 1`, Q
    that of the last token of a prompt without instruction, both reduced over heads and normalised over the visual
    tokens.
    Signal: attention of the instruction in the decoder, and of the last token of a second prompt around the same
    images.
    Paper: "Accelerating Multimodal Large Language Models with Prior-Corrected Token Reduction", ECCV 2026, arXiv
    2606.24156, the variant PriorTR-2F; its text was not at hand, so no section can be named.
    Original: CodeChildCZJ/PriorTR, Apache-2.0.

    A share is floored. Tokens keep their positions; the caches of earlier layers are trimmed. The prior prompt
    "truncate" is the task prompt cut behind the null token, the first token after the image that can not see the
    instruction. Decoders are causal, so its last row is the null token's row in the task prompt: it is read there, the
    same numbers without a second forward. At later stages it is read over what is left. "template" is another text
    around the same images, which do pass through the first layers twice; Q of every stage comes from the whole images,
    whatever is dropped before, and its cost counts in the report. It cannot be trained. `from_processor` writes the
    template of the released code.

    Deviations: the released code computes one Q and uses it at every stage.

    Args:
        layer: K of the paper.
        prior_mode: "truncate" or "template".
        before: token ids of the template before the first image.
        between: token ids between two images.
        after: token ids after the last image; Q is the row of the last of them.
        prior_layer: Q of the "same" layer as P, or of the "next", `layer`, as the released Video-LLaVA code has it.
        query_aggregation: P is the mean over all rows after the image ("question"), or the last row ("last").
        head_aggregation: "mean" or "max" over heads.
        last_row: whether the last row belongs to the rows of "question".
        as_released: take Q = 0, a ranking by P, as the released Qwen3-VL code does with eager attention: in its prior
            prompt equal positions count as packed sequences, and no image is seen. For positions with several axes
            only. Under sdpa, where that code adds the mask to the scores and reads rows that are not causal, its Q is
            another one, which is not offered.
    """

    layer: int | list[int] = 3
    prior_mode: Literal["truncate", "template"] = "truncate"
    before: list[int] = field(default_factory=list)
    between: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    prior_layer: Literal["same", "next"] = "same"
    query_aggregation: Literal["question", "last"] = "question"
    head_aggregation: Literal["mean", "max"] = "mean"
    last_row: bool = False
    as_released: bool = False
    past: Past = field(default="trim", kw_only=True)
    paper = "arXiv 2606.24156"
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        template = self.prior_mode == "template"
        if template and not self.after:
            raise BudgetError("prior_mode='template' needs after=, the ids of the text that ends the prior prompt")
        if not template and (self.before or self.between or self.after):
            raise BudgetError("before, between and after are the texts of prior_mode='template'; set that, too")
        if template and self.as_released:
            raise BudgetError("as_released=True sets Q to 0 and needs no template; use prior_mode='truncate'")

    @classmethod
    def from_processor(cls, processor: Any, system: str = "You are a helpful assistant.", **knobs: Any) -> "PriorTR2F":
        """With the template of the released code: a system turn, a user turn of the images alone, the end of the turn.

        Args:
            processor: of the model, with a chat template; it is shown two blank pictures.
            system: what the system turn says.
            knobs: the other fields.

        Raises:
            InputError: its chat template puts no text after an image.
        """
        image, blank = {"type": "image"}, torch.zeros(3, 64, 64, dtype=torch.uint8)
        turns = [("system", [{"type": "text", "text": system}]), ("user", [image, image])]
        chat = [{"role": role, "content": content} for role, content in turns]
        text = processor.apply_chat_template(chat, tokenize=False)
        first = processor.tokenizer.bos_token
        special = {"add_special_tokens": False} if first and text.startswith(first) else {}
        for ending in (text.rstrip(), text):  # the line break behind the end of the turn is not part of it
            ids = list(processor(text=[ending], images=[[blank, blank]], **special)["input_ids"][0])
            places = [i for i, token in enumerate(ids) if token == processor.image_token_id]
            if places and places[-1] + 1 < len(ids):
                break
        else:
            raise InputError(
                f"the chat template of {type(processor).__name__} puts no text after an image, so no token could look "
                "at it; give before=, between= and after= yourself"
            )
        gaps = [(a + 1, b) for a, b in zip(places, places[1:], strict=False) if b > a + 1]
        start, end = gaps[len(gaps) // 2] if len(gaps) % 2 else (0, 0)  # the others are inside the pictures
        before, between, after = ids[: places[0]], ids[start:end], ids[places[-1] + 1 :]
        return cls(prior_mode="template", before=before, between=between, after=after, **knobs)

    def prepare(self, ctx: Context) -> torch.Tensor | None:
        if self.prior_mode == "truncate":
            return None
        layers = [self._prior_layer(layer) for layer in (self.layer if isinstance(self.layer, list) else [self.layer])]
        return ctx.second(self.before, self.between, self.after, layers)

    def score(self, ctx: Context) -> torch.Tensor:
        prior = None if self.as_released else self._prior(ctx)
        posterior = ctx.attention(self._queries(ctx), average=True)[:, :, 0]
        prior = self._no_prior(ctx, posterior) if prior is None else prior
        return prior_corrected(posterior, prior.to(posterior.device), self.head_aggregation)

    def _prior(self, ctx: Context) -> torch.Tensor:
        """Q of every head, `[units, heads, visual]`."""
        if ctx.prepared is None:
            return ctx.attention("anchor", layer=self._prior_layer(ctx.layer))[:, :, 0]
        whole = ctx.prepared[:, ctx.stage_index]
        return whole.gather(2, ctx.index.to(whole.device)[:, None].expand(-1, whole.shape[1], -1))

    @staticmethod
    def _no_prior(ctx: Context, posterior: torch.Tensor) -> torch.Tensor:
        if ctx.axes == 1:
            raise UnsupportedModel(
                "as_released=True is what the released code for Qwen3-VL does because the tokens of an image share one "
                "position in time; positions of this model have one axis, so leave as_released out"
            )
        return torch.zeros_like(posterior)

    def _prior_layer(self, layer: int) -> int:
        return layer if self.prior_layer == "next" else layer - 1

    def _queries(self, ctx: Context) -> Queries:
        if self.query_aggregation == "last":
            return "last"
        rows = ctx.text.shape[1]
        return "text" if self.last_row or rows < 2 else torch.arange(-rows, -1)
