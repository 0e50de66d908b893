"""What the host knows of a forward's input: fetched once, before anything is planned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seeless.core.family import Kind, ModelView
from seeless.core.pictures import Pictures
from seeless.core.shown import check_shown
from seeless.core.transfer import fetch
from seeless.core.units import Layout
from seeless.errors import InputError

NOTHING_TO_LEARN = -100  # the label that transformers leaves out of the loss
PromptLength = int | Sequence[int]


@dataclass(frozen=True, eq=False)
class Prompt:
    """The input of a prefill, on the host.

    Args:
        valid: `[batch, seq]` bool, False on padding; None if there is none.
        past_valid: `[batch, past]` bool, the same of what was cached before; None if there is none, or nothing cached.
        ids: `[batch, seq]`; None if the input came as embeddings.
        ends: per row, the column where its prompt ends and an answer that is in the forward, too, begins.
        answers: per row, the columns of the first tokens of all answers, where labels mark them; else None.
        positions: `[..., batch or 1, seq]`, where somebody asked for them.
    """

    layout: Layout
    valid: np.ndarray | None
    past_valid: np.ndarray | None
    ids: np.ndarray | None
    ends: list[int]
    answers: list[np.ndarray] | None
    positions: np.ndarray | None

    @property
    def batch(self) -> int:
        return len(self.layout.columns)

    @property
    def length(self) -> int:
        return self.layout.visual.shape[1]

    def columns(self, row: int) -> np.ndarray:
        """The columns of a row that are no padding."""
        return np.arange(self.length) if self.valid is None else np.flatnonzero(self.valid[row])

    def lengths(self) -> list[int]:
        """Tokens of every row."""
        return [self.length] * self.batch if self.valid is None else self.valid.sum(1).tolist()

    def text(self, row: int, after: int) -> np.ndarray:
        """Columns of a row's text that follow column `after` and belong to the prompt."""
        columns = self.columns_asking(row)
        columns = columns[columns > after]
        return columns[~self.layout.visual[row, columns]]

    def columns_asking(self, row: int) -> np.ndarray:
        """The columns of a row that belong to its prompt."""
        columns = self.columns(row)
        return columns[columns < self.ends[row]]

    def closing_text(self) -> int:
        """How many columns at the end are text behind all images, and padding in no row."""
        last = max(int(own[-1]) for own in self.layout.columns if len(own))
        if self.valid is not None and len(padding := np.flatnonzero(~self.valid.all(0))):
            last = max(last, int(padding[-1]))
        return self.length - 1 - last

    def text_after_images(self, row: int) -> np.ndarray:
        """Columns of a row's text behind its last visual token."""
        return self.text(row, int(self.layout.columns[row][-1]))


def read_prompt(
    view: ModelView,
    given: Mapping[str, Any],
    pictures: Pictures,
    mask: torch.Tensor | None,
    length: int,
    prompt_length: PromptLength | None,
    positions: torch.Tensor | None,
    hidden: torch.Tensor | None = None,
) -> Prompt | None:
    """Fetch what the plan of a prefill needs; None if no visual token is among the input.

    Args:
        given: arguments of the base model's forward, and labels if the whole model was given some.
        mask: `[batch, past + seq]`, 2-D; None = all ones.
        length: tokens of this forward.
        prompt_length: columns of the input before the answer, where somebody said so.
        positions: `[..., batch or 1, seq]`, if they are wanted on the host.
        hidden: tokens of a reduced cache that the mask hides, `count_hidden`; None where there is none.

    Raises:
        InputError: there are some.
    """
    ids, labels = given.get("input_ids"), given.get("labels")
    wanted = dict(pictures.wanted())
    wanted |= {"ids": ids} if ids is not None else {kind: _marked(view, given, kind) for kind in pictures.kinds}
    for name, tensor in (("mask", mask), ("labels", labels), ("positions", positions), ("hidden", hidden)):
        if tensor is not None:
            wanted[name] = tensor
    host = fetch(wanted)
    if hidden is not None:
        check_shown(host["hidden"])
    masks: dict[Kind, np.ndarray] = {
        kind: host["ids"] == view.placeholder(kind) if ids is not None else host[kind].astype(bool)
        for kind in pictures.kinds
    }
    if not any(own.any() for own in masks.values()):
        return None
    valid = past = None
    if mask is not None:
        seen = host["mask"] != 0
        past, valid = (None if part.all() else part for part in (seen[:, :-length], seen[:, -length:]))
    if valid is not None and not valid.any(1).all():
        raise InputError("a row of the batch is all padding")
    layout = pictures.layout(masks, valid, view.family.runs, host)
    answers = _answers(host["labels"], valid) if labels is not None else None
    ends = _ends(layout, answers, prompt_length)
    return Prompt(layout, valid, past, host.get("ids"), ends, answers, host.get("positions"))


def _marked(view: ModelView, given: Mapping[str, Any], kind: Kind) -> torch.Tensor:
    """`[batch, seq]` bool, True on placeholders, from embeddings alone."""
    embeds, table = given["inputs_embeds"], view.base.get_input_embeddings()
    token = torch.tensor(view.placeholder(kind), device=embeds.device)
    return (embeds == table(token).to(embeds.dtype)).all(-1)


def _answers(labels: np.ndarray, valid: np.ndarray | None) -> list[np.ndarray]:
    """Per row, the columns at which labels change from nothing to be learnt to something."""
    learnt = labels != NOTHING_TO_LEARN
    learnt = learnt if valid is None else learnt & valid
    before = np.pad(learnt, ((0, 0), (1, 0)), constant_values=True)[:, :-1]
    if valid is not None:  # the first token of a row follows nothing
        before = np.where(np.pad(valid, ((0, 0), (1, 0)))[:, :-1], before, True)
    return [np.flatnonzero(row) for row in learnt & ~before]


def _ends(layout: Layout, answers: list[np.ndarray] | None, told: PromptLength | None) -> list[int]:
    """Per row, where the prompt ends: at the first answer behind its images, where labels mark one."""
    batch, length = layout.visual.shape
    if told is not None:
        ends = [told] * batch if isinstance(told, int) else [int(n) for n in told]
        last = [int(own[-1]) + 1 if len(own) else 0 for own in layout.columns]
        if len(ends) != batch or any(not before <= end <= length for before, end in zip(last, ends, strict=True)):
            raise InputError(
                f"prompt_length={told!r} does not fit {batch} rows of {length} tokens whose images end at {last}; give "
                "the columns before the answer, padding included: one number, or one per row"
            )
        return ends
    if answers is None:
        return [length] * batch
    ends = []
    for own, visual in zip(answers, layout.columns, strict=True):
        # An answer right behind the image leaves no question: then labels mark all text, not an answer.
        later = own[own > visual[-1] + 1] if len(visual) and not (own == visual[-1] + 1).any() else own[:0]
        ends.append(int(later[0]) if len(later) else length)
    return ends
