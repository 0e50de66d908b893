"""ToMe: similar patches become one while the vision tower runs."""

import torch

from seeless.decision import Merge
from seeless.ops.bipartite import match_bipartite
from seeless.registry import register
from seeless.strategy import TowerStrategy


@register("tome")
class ToMe(TowerStrategy):
    """Merge the most similar tokens before every layer of the vision tower, and send one token of each group on.

    Formula: score = cos(k_a, k_b), k the mean over the heads of a token's keys in the coming tower layer (rotated where
    the tower rotates them). Before a layer the tokens of a picture are split by alternation into a and b; each of a
    finds its most similar b, and the r most similar pairs are merged into the token of b, whose value becomes the mean
    weighted by how many tokens each stands for (`ops.bipartite.match_bipartite`).
    Signal: keys of every tower layer.
    Paper: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv 2210.09461, section 3.
    Original: facebookresearch/ToMe, CC BY-NC 4.0.

    The class token is never merged. A token of the tower is what becomes one token of the decoder: where several
    patches do, their block is matched by the mean of its keys and merged patch by patch. Ties go to the lower place.
    `TowerStrategy` says what becomes of the groups.

    Deviations:
    - Its layers merge between attention and feed-forward network, by the keys of that attention; here tokens merge
      before the layer, by the same keys, so its attention is cheaper, too. The keys are computed once more for it,
      which costs about a twelfth of a layer and is not counted among the report's FLOPs.
    - r is not given but follows from the budget, spread evenly over the layers.
    - The tokens that remain keep the order of the picture, where the paper concatenates its two sets.
    - The layer whose output the projector takes, and any after it, see every patch again, with its group's value. To
      that layer a group weighs as much as it has patches, which is proportional attention without a mask.
    - `proportional` is off unless asked for, because most towers cannot take it.
    - The paper classifies images; sending one token of each group on to a language model is this library's.

    Args:
        keep: share (rounded) of a picture's decoder tokens that remain at the end of the tower, or their number.
    """

    paper = "arXiv 2210.09461"

    def merge(self, keys: torch.Tensor, sizes: torch.Tensor, count: int) -> Merge:
        source, target = match_bipartite(keys, count)
        token = torch.arange(keys.shape[1], device=keys.device).expand(len(keys), -1)
        slot = token.scatter(1, source, target)
        together = torch.zeros_like(sizes).scatter_add(1, slot, sizes)
        return Merge(slot == token, token, slot, sizes / together.gather(1, slot))
