"""Everything a strategy may look at. Lazy: what is not asked for is not computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from seeless.context_text import TextContext
from seeless.context_tower import TowerContext
from seeless.errors import InputError
from seeless.shaped import shaped

Queries = Literal["last", "text", "anchor", "answers"] | torch.Tensor
Tokens = Literal["visual", "text"]
Onto = Literal["visual", "row"]


class Memory(dict):
    """What the stages of a strategy tell each other during one prefill."""

    def __missing__(self, key: object) -> object:
        raise KeyError(
            f"no earlier stage of this prefill has put {key!r} into ctx.memory for these units; a stage whose budget "
            "is 1.0 is not asked: to look at a layer without dropping there, name it in `watches` and call ctx.entering"
        )


@dataclass(frozen=True, eq=False)
class Context(TowerContext, TextContext):
    """A stage's view of some units of equal size, ranked together. Read-only; tensors carry no gradient.

    Args:
        layer: layers before this one see every token; 0 at the entry.
        stage_index: which of the strategy's stages this is.
        n_keep: tokens to keep in each of these units.
        index: `[units, visual]`, place of each token among the original visual tokens of its unit.
        n_original: visual tokens each unit had when it entered.
        grid: (frames, height, width) of the unit's tokens while they are complete and form a grid, else None.
        answers: with labels, how many answers follow in the unit's row; None without.
        memory: a dict that lives for one prefill, shared by the strategy's stages on the same units.
        sources: the object that answers all questions below, by methods of their names that take all arguments.
        axes: of the positions: 1, or 3 where they are coordinates of time, height and width (M-RoPE).
        frames: how many frames a unit's video has at most, 1 for stills, and how many tokens or places in its grid one
            of them has at most; None if nobody counted.
        prepared: what the strategy's `prepare` gave for these units, `[units, ...]`; None if it gave nothing.
    """

    layer: int
    stage_index: int
    n_keep: int
    index: torch.Tensor
    n_original: int
    grid: tuple[int, int, int] | None
    memory: dict
    sources: Any = field(repr=False)
    answers: int | None = None
    axes: int = 1
    frames: tuple[int, int] | None = None
    prepared: torch.Tensor | None = field(default=None, repr=False)

    def whole_frames(self) -> tuple[int, int]:
        """How many frames each unit has, and how many tokens each of these; a still is one frame.

        The tokens lie frame after frame.

        Raises:
            InputError: a video of which tokens have left already, or whose frames differ in size.
        """
        if self.grid is not None:
            frames, height, width = self.grid
            return frames, height * width
        if self.frames is not None and self.frames[0] > 1:
            raise InputError(
                "this strategy compares the frames of a video place by place, but some of its tokens are gone already, "
                "or its frames differ in size; let it act first, and on scope='image'"
            )
        return 1, self.index.shape[1]

    @cached_property
    @shaped("visual", "dim")
    def visual(self) -> torch.Tensor:
        """Hidden states of the visual tokens at this stage, `[units, visual, dim]`."""
        return self.sources.visual()

    @cached_property
    @shaped("seq", "dim")
    def hidden(self) -> torch.Tensor:
        """Hidden states of the whole sequence each unit stands in, `[units, seq, dim]`."""
        return self.sources.hidden()

    @cached_property
    @shaped("seq", "dim")
    def uninjected(self) -> torch.Tensor:
        """`hidden` as the layer before the stage gave it, before features of the tower were added (DeepStack)."""
        return self.sources.uninjected()

    @cached_property
    @shaped("text", "dim")
    def text(self) -> torch.Tensor:
        """Hidden states of the tokens after the last visual token of the unit's row, `[units, text, dim]`."""
        return self.sources.text()

    @cached_property
    @shaped("visual", "dim")
    def embeds(self) -> torch.Tensor:
        """Embeddings of the visual tokens as they entered the first layer, `[units, visual, dim]`."""
        return self.sources.embeds()

    @cached_property
    @shaped("seq", "dim")
    def row_embeds(self) -> torch.Tensor:
        """Embeddings of the tokens of `hidden` as they entered the first layer, `[units, seq, dim]`."""
        return self.sources.row_embeds()

    @cached_property
    @shaped("visual")
    def places(self) -> torch.Tensor:
        """Where the visual tokens stand in `hidden`, `[units, visual]`."""
        return self.sources.places()

    @shaped("visual", "dim")
    def entering(self, layer: int) -> torch.Tensor:
        """Hidden states of the unit's visual tokens as they entered an earlier layer, `[units, visual then, dim]`.

        Only for layers that the strategy names in `watches`.
        """
        return self.sources.entering(layer)

    @cached_property
    @shaped("text", "dim")
    def text_embeds(self) -> torch.Tensor:
        """Embeddings of the tokens of `text` as they entered the first layer, `[units, text, dim]`."""
        return self.sources.text_embeds()

    @shaped("heads", "queries", "onto")
    def attention(
        self,
        queries: Queries = "last",
        layer: int | None = None,
        average: bool = False,
        onto: Onto = "visual",
        causal: bool = True,
    ) -> torch.Tensor:
        """Attention from some rows to the visual tokens, `[units, heads, queries, visual]`, float32.

        Softmax over all visible keys (causal, no padding), read at the visual tokens. Computed for the asked rows only,
        from the queries and keys that the layer itself gives its attention kernel, which stays as it is.

        Args:
            queries: "last": the last token of the row's prompt. "text": every token of the prompt after the row's last
                visual token, the last one included. "anchor": the null token, the first token after the unit that
                cannot have seen the instruction. "answers": with labels, every token right before an answer, where
                labels go from -100 to something else. A tensor `[queries]`: these rows of `hidden`, negative ones from
                the end of the prompt.
            layer: whose projections; the layer before the stage unless told. The coming layer (`ctx.layer`) gives
                the attention it would compute on what it is about to see, in training without dropout. For a layer
                without attention (linear attention, a convolution) the nearest one before it that has any stands, over
                the tokens that are left now; the stage's report says which (`StageReport.attention`).
            average: give the mean over the asked rows, `[units, heads, 1, visual]`, without ever holding them all.
            onto: "row" gives the attention to every token of `hidden`, `[units, heads, queries, seq]`.
            causal: False lets rows see what comes after them; only to reproduce released code that does.

        Raises:
            UnsupportedModel: no decoder layer up to that one has attention.
        """
        return self.sources.attention(queries, self.layer - 1 if layer is None else layer, average, onto, causal)

    @shaped("queries", "visual")
    def visible(self, queries: Queries = "last", layer: int | None = None) -> torch.Tensor:
        """Which visual tokens the model lets some rows attend to, `[units, queries, visual]` bool.

        Causality, attention windows, and images that see themselves both ways. Arguments and errors as for `attention`.
        """
        return self.sources.visible(queries, self.layer - 1 if layer is None else layer)

    @shaped("layers", "heads", "visual")
    def second(
        self, before: Sequence[int], between: Sequence[int], after: Sequence[int], layers: Sequence[int]
    ) -> torch.Tensor:
        """Attention of the last token of another prompt around the same images, `[units, layers, heads, visual]`.

        Only in `Strategy.prepare`. The prompt is text, the images (and videos) of the unit's row as they entered the
        decoder, and text; it runs without a cache up to the deepest layer asked for. Nothing of the running prompt but
        its images is seen. Softmax over all its tokens, read at the visual ones, float32. SmolVLM, Idefics3 and Gemma 3
        count every tile as an image.

        Args:
            before: token ids before the first image.
            between: token ids between two images.
            after: token ids after the last image.
            layers: whose attention.

        Raises:
            UnsupportedModel: the model is being trained.
            InputError: ids that are no text, or an image that nothing follows in the running prompt.
        """
        return self.sources.second(before, between, after, layers)

    @shaped("kv_heads", "tokens", "head_dim")
    def keys(self, layer: int | None = None, tokens: Tokens = "visual") -> torch.Tensor:
        """Rotated keys, `[units, kv_heads, visual, dim]`, of the layer before the stage unless told.

        Args:
            layer: whose projections; of a layer without attention, as for `attention`.
            tokens: "text" gives those of the tokens after the last visual token of the unit's row instead,
                `[units, kv_heads, text, dim]`.
        """
        return self.sources.keys(self.layer - 1 if layer is None else layer, tokens)

    @shaped("tokens", "dim")
    def normed(self, tokens: Tokens = "visual") -> torch.Tensor:
        """`visual` (or `text`) through the decoder's final norm: what its output layer would read if it came now."""
        return self.sources.normed(tokens)

    @shaped("one", "queries", "visual")
    def rope_bias(self, queries: Queries = "last", layer: int | None = None) -> torch.Tensor:
        """What rotary positions alone add to the product of queries and keys, `[units, 1, queries, visual]`, float32.

        The scaled product of all-one queries and all-one keys, rotated as those of the layer are. It depends only on
        the distance between a row and a visual token, and may be zero or negative. Arguments as for `attention`.
        """
        return self.sources.rope_bias(queries, self.layer - 1 if layer is None else layer)

    @property
    @shaped("visual")
    def patch(self) -> torch.Tensor:
        """Place of each token in the grid of its crop, `[units, visual]`; -1 for tokens that show no patch."""
        return self.sources.patch()

    @property
    @shaped("visual")
    def frame(self) -> torch.Tensor:
        """Number of the video frame each token belongs to, `[units, visual]`, from 0 in every video; -1 for tokens of
        still images. Tokens that show no patch belong to a frame, too: a class token to its own, a newline that closes
        a video to the first."""
        return self.sources.frame()
