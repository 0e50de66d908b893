"""A second, shorter prompt around the images of the running one, through the first decoder layers, without a cache."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from seeless.core.attention import check_attention, read_nothing
from seeless.core.capture import Call, Capture, Reached
from seeless.core.family import ModelView
from seeless.core.injection import Injection
from seeless.core.masks import causal_mask, of_all_layers, token_blocks
from seeless.core.prompt import Prompt
from seeless.core.sharding import leave
from seeless.core.transfer import upload
from seeless.errors import InputError, UnsupportedModel
from seeless.ops.attention import attention_rows


@dataclass
class SecondForward:
    """Runs text, the images of a row as they entered the decoder, and more text; reads the last token's attention.

    What stands inside an image or video (row breaks, the time stamps of frames) stays as it is in the running prompt,
    and so do its positions up to a shift, whether they have one axis or three: where an image starts, and where the
    text goes on, depends on it alone. One row of the batch at a time, so there is no padding.

    Args:
        prompt: the running prompt, with its positions.
        embeds: `[batch, seq, dim]`, what it is made of.
        injection: visual features that enter between layers, if there are some.
        layer_inputs: whether layers take something of their own for every token, which a second prompt would lack.
        runs: gets (row, tokens, decoder layers) of every run.
        self_check: whether attention that is read for the first time is compared with the model's own.
    """

    view: ModelView
    prompt: Prompt
    embeds: torch.Tensor
    injection: Injection | None
    layer_inputs: bool
    runs: list[tuple[int, int, int]]
    self_check: bool
    known: dict[tuple, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trained = self.view.model.training and torch.is_grad_enabled()

    def __call__(
        self, row: int, before: Sequence[int], between: Sequence[int], after: Sequence[int], layers: Sequence[int]
    ) -> torch.Tensor:
        """`[layers, heads, visual]`: in some layers, attention of the last token to the row's visual tokens.

        Args:
            before, between, after: ids of the text before the first image, between two, and after the last.

        Raises:
            UnsupportedModel: the model is being trained, places text by the pictures around it, or is one whose layers
                need more than the prompt.
            InputError: a text that is none, no token after an image of the running prompt, or a prompt too long.
        """
        if self.trained:
            raise UnsupportedModel(
                "this strategy runs a second prompt through the decoder, which cannot be trained along with the first; "
                "call model.eval() or use torch.no_grad(), or choose a strategy that reads the running prompt only"
            )
        if self.view.family.canvas:
            raise UnsupportedModel(
                f"positions of text next to a picture depend on the picture in {self.view.family.title}, so it cannot "
                "be put into a second prompt; choose a strategy that reads the running prompt only"
            )
        if self.view.family.both_ways_joined:
            raise UnsupportedModel(
                f"in {self.view.family.title} markers in and around pictures see each other both ways, too, and a "
                "second prompt does not say which they are; choose a strategy that reads the running prompt only"
            )
        if self.layer_inputs:
            raise UnsupportedModel(
                f"the layers of this {self.view.family.title} model take something of their own for every token, which "
                "a second prompt does not have; choose a strategy that reads the running prompt only"
            )
        asked = (row, *map(tuple, (before, between, after, layers)))
        if asked not in self.known:
            self.known[asked] = self._run(row, before, between, after, layers)
        return self.known[asked]

    def _run(
        self, row: int, before: Sequence[int], between: Sequence[int], after: Sequence[int], layers: Sequence[int]
    ) -> torch.Tensor:
        layout = self.prompt.layout
        columns, images = layout.columns[row], layout.images[row]
        embeds, positions, places, start, length = [], [], [], 0, 0
        for number, text in enumerate([before, *[between] * (len(images) - 1), after]):
            embeds.append(self._text(text))
            positions.append(np.tile(np.arange(start, start + len(text)), (self._axes, 1)))
            start, length = start + len(text), length + len(text)
            if number == len(images):
                break
            own = columns[images[number].tokens]
            first, last = int(own[0]), int(own[-1])
            here, step = self._shifted(row, first, last)
            embeds.append(self.embeds[row, first : last + 1].detach())
            positions.append(here + start)
            places.append(own - first + length)
            start, length = start + step, length + last + 1 - first
        given, shown = upload([np.concatenate(positions, 1)[:, None], np.concatenate(places)], self.embeds.device)
        return self._read(torch.cat(embeds)[None], given, shown, row, layers)

    @property
    def _axes(self) -> int:
        return 3 if self.view.family.mrope else 1

    def _text(self, ids: Sequence[int]) -> torch.Tensor:
        """Embeddings `[text, dim]` of some ids."""
        table = self.view.language_model.get_input_embeddings()
        wrong = [
            i for i in ids if not 0 <= i < table.num_embeddings or i in map(self.view.placeholder, self.view.kinds)
        ]
        if wrong:
            raise InputError(
                f"the ids {wrong} of the second prompt are no text: they must lie in 0 ... {table.num_embeddings - 1} "
                "and leave out the placeholders of images and videos, which are put in between"
            )
        return table(torch.tensor(list(ids), dtype=torch.long, device=self.embeds.device)).detach()

    def _shifted(self, row: int, first: int, last: int) -> tuple[np.ndarray, int]:
        """Positions `[axes, tokens]` of the columns of an image, from 0 on, and how far after it the text goes on."""
        after, prompt = last + 1, self.prompt
        if after == prompt.length or (prompt.valid is not None and not prompt.valid[row, after]):
            raise InputError("no token follows the image, so nothing asks about it; put the question after the image")
        everything = prompt.positions
        assert everything is not None
        own = np.broadcast_to(everything, (*everything.shape[:-2], prompt.batch, prompt.length))
        own = own[..., row, first : after + 1]
        own = np.broadcast_to(own[-3:] if own.ndim == 2 else own[None], (self._axes, own.shape[-1]))
        own = own - own[:, :1].min()
        return own[:, :-1], int(own[:, -1].min())

    def _read(
        self, embeds: torch.Tensor, positions: torch.Tensor, places: torch.Tensor, row: int, layers: Sequence[int]
    ) -> torch.Tensor:
        view, length = self.view, embeds.shape[1]
        visual = torch.zeros(1, length, dtype=torch.bool, device=embeds.device)
        visual[0, places] = True
        # An explicit mask: the positions of visual tokens, many of them equal, must not be taken for packed sequences.
        mask: Any = torch.ones(1, length, dtype=torch.long, device=embeds.device)
        if view.both_ways:
            types = torch.zeros_like(mask) if view.family.prefix else visual.long()
            blocks, plain = token_blocks(types, view.family.prefix), mask
            at = torch.arange(length, device=embeds.device)[None] if view.reaches(length) else None
            mask = of_all_layers(view, lambda layer: causal_mask(view, embeds, plain, None, layer, blocks, at))
        given = {"inputs_embeds": embeds, "attention_mask": mask, "use_cache": False}
        given["position_ids"] = positions if self._axes > 1 else positions[0]
        if self.injection is not None:
            first = sum(map(len, self.prompt.layout.columns[:row]))
            mine = slice(first, first + len(self.prompt.layout.columns[row]))
            given |= self.injection.arguments(mine, visual)
        layers = [view.attention_layer(layer) for layer in layers]
        rows: dict[int, torch.Tensor] = {}
        deepest = max(layers)

        def see(index: int, call: Call) -> None:
            rows[index] = _last_row(call, places, view.window if view.slides(index) else None)
            if index == deepest:
                raise Reached(call.module)

        capture = Capture({index: view.layers[index] for index in layers}, see, self.self_check, ahead=True)
        try:
            with torch.no_grad(), capture:
                view.language_model.forward(**given)  # past the hooks on the module, which belong to the running prompt
        except Reached as reached:
            leave(view.language_model, reached.module)
        if missing := [index for index in layers if index not in rows]:
            raise read_nothing(view.layers[missing[0]])
        self.runs.append((row, length, deepest))
        return torch.stack([rows[index].to(embeds.device) for index in layers])


def _last_row(call: Call, places: torch.Tensor, window: int | None) -> torch.Tensor:
    """`[heads, visual]`, attention of the last token, which sees everything within the layer's window, to the tokens at
    `places`."""
    device, length = call.key.device, call.key.shape[2]
    query, columns = call.query[:, :, -1:], torch.arange(length, device=device)[None]
    seen = None if window is None else (columns >= length - window)[:, None]
    weights = attention_rows(query, call.key, call.scaling, seen, columns, call.softcap, call.sinks)
    if call.output is not None:
        row = torch.zeros(1, dtype=torch.long, device=device)
        check_attention(call, row, row[:, None] + length - 1, weights)
    return weights[0, :, 0, places.to(device)]
