"""Which words of a prompt have to do with the image."""

import torch

from seeless.ops.ties import rounding


def text_raters(visual: torch.Tensor, text: torch.Tensor, rows_at_once: int = 32) -> torch.Tensor:
    """Mask `[units, text]` of the text tokens that the visual tokens resemble more than the average text token.

    m = mean over visual tokens of softmax(visual @ text^T) over the text; a rater has m > mean(m). SparseVLM, arXiv
    2410.04417, section 3.2. Where no token is above the mean, because all are equal but for
    rounding, all are raters.

    Args:
        visual: `[units, visual, dim]` embeddings.
        text: `[units, text, dim]` embeddings.
        rows_at_once: visual tokens whose row of the `[visual, text]` matrix is held at a time.

    >>> text_raters(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])).tolist()
    [[True, False]]
    """
    mean = torch.zeros(text.shape[:2], dtype=text.dtype, device=text.device)
    for some in visual.split(rows_at_once, dim=1):
        mean += (some @ text.transpose(1, 2)).softmax(2).sum(1) / visual.shape[1]
    above = mean > mean.mean(1, keepdim=True) * (1 + rounding(mean.dtype))
    return above | ~above.any(1, keepdim=True)
