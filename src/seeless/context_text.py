"""What a strategy may ask about the question and about how patches relate to text."""

from collections.abc import Sequence
from typing import Any

import torch

from seeless.shaped import shaped


class TextContext:
    """The questions of a `Context` about text that a strategy reads itself, the prompt's or any other."""

    sources: Any

    @shaped("visual")
    def text_similarity(self, clip: str | None, question: str | None = None) -> torch.Tensor:
        """Cosine of each patch to the question, `[units, visual]`, float32.

        Where the tower is a CLIP's, in CLIP's common space: the mean over the question's segments, as many tokens long
        as CLIP's text tower takes; patches are `vision_features` through that CLIP model's last norm and projection.
        Else in the space that enters the decoder: the mean over the question's tokens; patches are `embeds`.

        Args:
            clip: folder or hub name of the CLIP model that the vision tower came from; None where it is no CLIP.
            question: None reads it from the prompt: the text after the last image up to where the answer begins.

        Raises:
            UnsupportedModel: the tower is a CLIP and `clip` is None or another one; it is none and `clip` is given.
            InputError: there is no question, or no tokenizer to read it with.
        """
        return self.sources.text_similarity(clip, question)

    def question(self, text: str | None = None) -> str:
        """What is asked about the picture, without the template around it; the same for all units.

        Args:
            text: None reads it from the prompt: the text after the last image up to where the answer begins, decoded
                without special tokens with the tokenizer of the checkpoint the model was loaded from.

        Raises:
            InputError: there is none, or no tokenizer to read it with.
        """
        return self.sources.question(text)

    @shaped("text")
    def token_ids(self, pieces: Sequence[str]) -> torch.Tensor:
        """The model's own tokens of some pieces of text, `[units, words]`, each cut into tokens by itself.

        Raises:
            InputError: there is no tokenizer, or there are no tokens.
        """
        return self.sources.token_ids(pieces)

    @shaped("text", "dim")
    def token_embeds(self, pieces: Sequence[str]) -> torch.Tensor:
        """Rows of the decoder's embedding table for these tokens, `[units, words, dim]`. Errors as for `token_ids`."""
        return self.sources.token_embeds(pieces)

    def in_clip_space(self, clip: str | None) -> bool:
        """Whether patches and text are compared in CLIP's common space: the tower is a CLIP, and `clip` names it.

        Raises:
            UnsupportedModel: it is one and `clip` is None, or it is none and `clip` is given.
        """
        return self.sources.in_clip_space(clip)

    @shaped("visual", "clip_dim")
    def clip_patches(self, clip: str | None) -> torch.Tensor:
        """Patches in the common space of CLIP: `vision_features` through that CLIP's last norm and projection.

        Args:
            clip: folder or hub name of the CLIP model that the vision tower came from.

        Returns:
            `[units, visual, dim]`, float32, not normalised.

        Raises:
            UnsupportedModel: the tower is no CLIP, or another one's, or none is named.
        """
        return self.sources.clip_patches(clip)

    @shaped("segments", "clip_dim")
    def clip_text(self, clip: str | None, text: str) -> torch.Tensor:
        """A text there, `[units, segments, dim]`: CLIP's pooled vector of each segment, as many tokens long as its text
        tower takes. Errors as for `clip_patches`."""
        return self.sources.clip_text(clip, text)

    @shaped("text", "clip_dim")
    def clip_tokens(self, clip: str | None, text: str, padding: bool = False) -> torch.Tensor:
        """Its tokens there, `[units, words, dim]`, the first and the last token included. Errors as for `clip_patches`.

        Args:
            padding: with what stands behind the text, up to the length of the last segment.
        """
        return self.sources.clip_tokens(clip, text, padding)
