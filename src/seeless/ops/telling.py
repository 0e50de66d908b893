"""Which words of a text point at few patches, and at which."""

import torch

from seeless.ops.ties import ranking


def telling_similarity(similarity: torch.Tensor, share: float, temperature: float, gamma: float) -> torch.Tensor:
    """How similar each patch is to the words that tell patches apart, `[units, visual]`.

    p_i = softmax over patches of similarity_i / temperature, h_i its entropy; of the words, the share with the lowest
    entropy, at least one and rounded down, is averaged with weights softmax(-h_i / gamma). EADP (ECCV 2026),
    equations 4 to 8.

    Args:
        similarity: `[units, words, visual]`.
        share: of the words, in (0, 1].
    """
    log = (similarity / temperature).log_softmax(-1)
    entropy = -(log.exp() * log).sum(-1)
    spoken = ranking(-entropy)[:, : max(1, int(share * entropy.shape[1] + 1e-9))]
    weight = (-entropy.gather(1, spoken) / gamma).softmax(-1)
    own = similarity.gather(1, spoken[..., None].expand(-1, -1, similarity.shape[2]))
    return (weight[..., None] * own).sum(1)
