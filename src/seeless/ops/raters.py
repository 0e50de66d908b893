"""Which words of a prompt have to do with the image."""

import torch

from seeless.ops.ties import rounding


def text_raters(visual: torch.Tensor, text: torch.Tensor, entries_at_once: int = 2**18) -> torch.Tensor:
    """Mask `[units, text]` of the text tokens that the visual tokens resemble more than the average text token.

    m = mean over visual tokens of softmax(visual @ text^T) over the text; a rater has m > mean(m). SparseVLM, arXiv
    2410.04417, section 3.2. Where no token is above the mean, because all are equal but for
    rounding, all are raters.

    Args:
        visual: `[units, visual, dim]` embeddings.
        text: `[units, text, dim]` embeddings.
        entries_at_once: of the `[visual, text]` matrices, held at a time.

    >>> text_raters(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])).tolist()
    [[True, False]]
    """
    mean = torch.zeros(text.shape[:2], dtype=text.dtype, device=text.device)
    rows = max(1, entries_at_once // (text.shape[0] * text.shape[1]))
    for some in visual.split(rows, dim=1):
        mean += (some @ text.transpose(1, 2)).softmax(2).sum(1) / visual.shape[1]
    above = mean > mean.mean(1, keepdim=True) * (1 + rounding(mean.dtype))
    return above | ~above.any(1, keepdim=True)
