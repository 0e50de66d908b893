"""What a strategy may ask about the vision tower."""

from typing import Any

import torch

from seeless.shaped import shaped
from seeless.tower import Asking, Tower


class TowerContext:
    """The questions of a `Context` about the tower. All but `tower` are about the units' visual tokens."""

    sources: Any

    @property
    def tower(self) -> Tower:
        """What is known of the vision tower: its layers, and which of them made the features."""
        return self.sources.tower()

    @shaped("tower_heads", "visual")
    def vision_attention(self, layer: int | None = None, queries: Asking | None = None) -> torch.Tensor:
        """Attention the vision tower pays to each token, `[units, heads, visual]`, float32.

        By default it is the class token's row in the layer that produced the features the projector takes; on towers
        without a class token it is the attention each patch receives there, averaged over all patches that ask. Where a
        layer is a convolution, it is that of the nearest layer with attention before it, and where several patches make
        one token, their mean. The stage's report says which it was.

        Args:
            layer: of the tower, from 0; None is the one that made the features. One that `Strategy.looks_into` names.
            queries: "class": the class token's row. "all": the mean of all rows, a class token's included; in a layer
                with attention windows, of all rows of the window. None: "class" where there is one, else "all".

        Raises:
            UnsupportedModel: "class" on a tower without a class token.
            InputError: it is not what `looks_into` names.
        """
        return self.sources.vision_attention(layer, queries)

    @shaped("visual", "tower_dim")
    def vision_hidden(self, layer: int) -> torch.Tensor:
        """What a tower layer gave for each token, `[units, visual, width]`; of several patches that make one, the mean.

        Args:
            layer: of the tower, from 0; one that `Strategy.looks_into` names as ("hidden", layer).
        """
        return self.sources.vision_hidden(layer)

    @shaped("tower_heads", "visual")
    def pooling_attention(self, siglip: str | None = None) -> torch.Tensor:
        """Attention that the probe of SigLIP's pooling head pays to each token, `[units, heads, visual]`, float32.

        The head (arXiv 2303.15343; one learnt query over all patches of a picture) reads the layer that made the
        features, through SigLIP's last norm. Where several patches make one token, their mean.

        Args:
            siglip: folder or hub name of the SigLIP whose head it is; None takes the tower's own. Vision-language
                checkpoints seldom have one.

        Raises:
            UnsupportedModel: the tower is no SigLIP, has no head and none is named, or another SigLIP is named.
        """
        return self.sources.pooling_attention(siglip)

    @shaped("visual", "tower_dim")
    def pooled(self, siglip: str | None = None) -> torch.Tensor:
        """What that head makes of the picture (image, tile, frame) each token shows, `[units, visual, width]`.

        Tokens of one picture have the same vector. Arguments and errors as for `pooling_attention`.
        """
        return self.sources.pooled(siglip)

    @shaped("tower_heads", "visual")
    def crop_attention(self) -> torch.Tensor:
        """`vision_attention` of the units' whole crops, `[units, heads, patches]`, padding that the model cuts away
        included; `patch` says where the tokens stand in it. For the scope "crop"."""
        return self.sources.crop_attention()

    @shaped("visual", "tower_dim")
    def vision_features(self) -> torch.Tensor:
        """What the projector took in for each token, `[units, visual, dim]`, or where that is not one vector per token,
        what it gave."""
        return self.sources.vision_features()

    @shaped("tower_heads", "visual", "tower_head_dim")
    def vision_keys(self) -> torch.Tensor:
        """Key vectors of the layer that `vision_attention` reads, `[units, heads, visual, dim]`."""
        return self.sources.vision_keys()

    @shaped("visual")
    def tower_groups(self) -> torch.Tensor:
        """Number of the group each token belongs to, `[units, visual]`, where a `TowerStrategy` merged in the tower."""
        return self.sources.tower_groups()

    @shaped("visual")
    def tower_stays(self) -> torch.Tensor:
        """Whether each token is left, `[units, visual]` bool, where a `PatchStrategy` let some leave in the tower."""
        return self.sources.tower_stays()

    @shaped("tower_dim")
    def class_token(self) -> torch.Tensor | None:
        """The class token of each unit's picture where `vision_features` has the patches, `[units, dim]`.

        None on towers without one, and where the projector takes in several patches at once. For the scope "crop".
        """
        return self.sources.class_token()

    @shaped("visual")
    def reader_attention(self) -> torch.Tensor:
        """Attention to each token in the tower layer that reads what the projector also takes, `[units, visual]`.

        softmax(q k^T / sqrt(width)), float32, as if that layer had one head of its whole width: the class token's row,
        or on towers without one the attention each patch receives on average; where several patches make one token,
        their mean. Features of the tower's last layer are read by none: then it is the layer that made them. The
        stage's report says which it was.
        """
        return self.sources.reader_attention()

    @shaped("visual", "tower_dim")
    def reader_keys(self) -> torch.Tensor:
        """Key vectors of the layer that `reader_attention` reads, all heads in one, `[units, visual, width]`."""
        return self.sources.reader_keys()
