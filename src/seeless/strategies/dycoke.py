"""DyCoke: of a video, drop what repeats a frame shortly before."""

from dataclasses import field

import torch
import torch.nn.functional as F

from seeless.budget import Budget
from seeless.context import Context
from seeless.decision import Keep
from seeless.errors import BudgetError
from seeless.ops.ties import ranking
from seeless.ops.topk import top_mask
from seeless.registry import register
from seeless.step import Step, StepReader
from seeless.strategy import EntryStrategy

STABLE = 0.9


@register("dycoke")
class DyCoke(EntryStrategy, StepReader):
    """Of three in four frames of a video keep what least resembles an earlier one; read what a step looks at.

    Formula: score = -cos(x[t, p], x[s, p]) for the token at place p of frame t. Frames 1, 3, 5, ... are compared with
    the frame before, s = t - 1, and frames 2, 6, 10, ... with s = t - 2; of each the floor((1 - drop) n) highest of its
    n tokens stay. Frames 0, 4, 8, ... stay whole. With `unread`, at every step of decoding one token, layers from
    `read_layer` on read, of the L cached visual tokens, the floor((1 - unread) L) that the token attends to most in
    the layer before, mean over heads; while the cosine of that attention to the one of the step before is at least
    0.9, the same ones as before.
    Signal: the embeddings x that enter the language model, of two frames; in decoding the attention of the new token in
    layer `read_layer - 1`.
    Paper: Tao et al., "DyCoke: Dynamic Compression of Tokens for Fast Video Large Language Models", CVPR 2025, arXiv
    2411.15024: its temporal stage, which it calls merging, though nothing is averaged, and its dynamic one.
    Original: https://github.com/KD-TAO/DyCoke, Apache-2.0.

    How many tokens stay follows from frames and `drop` alone: at the least every fourth frame. There is no budget;
    `keep=1.0` keeps all. A still image is a video of one frame and stays whole. Tokens that show no patch stay unless
    `newlines` is False. Positions are contiguous (kept on M-RoPE).

    In decoding nothing leaves the cache: what is not read is hidden by a mask, which changes answers and saves no
    memory. Steps of several tokens (a turn of text, drafts) and forwards without a cache read everything.

    Deviations: the stage of decoding is off unless asked for (`unread=0.8` as released), because static, quantised and
    offloaded caches and recurrent layers cannot do it. All visual tokens of a row are chosen among, where the released
    code takes columns that one chat template has; and no attention is carried into the next prompt. Tokens keep the
    order of the frame, where the released code puts the least similar first; and see `as_released`.

    Args:
        keep: None, or 1.0 for all tokens.
        drop: share of the tokens of a compared frame that leave, in [0, 1]; by default as in the released code, whose
            README has 0.7.
        unread: share of the cached visual tokens that deeper layers do not read at a step of decoding, in (0, 1); None
            reads all.
        read_layer: the first layer that reads a part of them.
        as_released: leave out what the released code, which the published counts are of, leaves out: the last block of
            four keeps its third frame whole, and of an odd number of frames the last one is lost (not if it is the only
            one); and while attention is stable, everything is read.
    """

    keep: Budget | None = None  # type: ignore[assignment]
    drop: float = 0.3
    unread: float | None = None
    read_layer: int = 3
    as_released: bool = False
    newlines: bool = field(default=True, kw_only=True)
    paper = "arXiv 2411.15024"
    own_count = True
    adaptive = True
    patches_only = True
    tower = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and not (isinstance(self.keep, float) and self.keep == 1):
            raise BudgetError(
                f"keep={self.keep} is not possible: how many tokens dycoke keeps follows from the frames and drop=; "
                "leave keep out, or give 1.0 to keep all"
            )
        if not 0 <= self.drop <= 1:
            raise BudgetError(f"drop={self.drop} is no share of a frame; give a number from 0 to 1")
        if self.unread is not None and not 0 < self.unread < 1:
            raise BudgetError(
                f"unread={self.unread} is not possible; give a share between 0 and 1, or None to read all"
            )
        if self.threshold is not None:
            raise BudgetError("dycoke keeps a number of tokens of every frame, so it takes no threshold")
        if self.scope != "image":
            raise BudgetError(f"dycoke compares the frames of a video; scope={self.scope!r} knows none, use 'image'")

    def select(self, ctx: Context) -> Keep:
        frames, size = ctx.whole_frames()
        units, visual = ctx.index.shape
        stays = torch.ones(units, frames, size, dtype=torch.bool, device=ctx.index.device)
        if frames == 1:
            return Keep(stays.flatten(1), count=visual)
        x = ctx.embeds.to(torch.promote_types(ctx.embeds.dtype, torch.float32))
        x = F.normalize(x.view(units, frames, size, -1), dim=-1)
        thirds = range(2, frames - 2 if self.as_released else frames, 4)
        left = int((1 - self.drop) * size)
        for reduced in (range(1, frames, 2), thirds):
            count, of, before = len(reduced), slice(reduced.start, None, reduced.step), slice(0, None, reduced.step)
            change = -(x[:, of][:, :count] * x[:, before][:, :count]).sum(-1)
            stays[:, of][:, :count] = top_mask(change.flatten(0, 1), left, size=1).view(units, count, size)
        whole = frames - len(range(1, frames, 2)) - len(thirds)
        if self.as_released and frames % 2:
            stays[:, -1] = False
            whole -= 1
        return Keep(stays.flatten(1), count=whole * size + (frames // 2 + len(thirds)) * left)

    def reads_from(self, depth: int) -> int | None:
        return None if self.unread is None else self.read_layer

    def read(self, step: Step) -> torch.Tensor:
        assert self.unread is not None
        scores = step.attention.mean(1).masked_fill(~step.visual, 0)
        count = (step.visual.sum(1, keepdim=True) * (1 - self.unread)).double().floor()
        rank = ranking(scores.masked_fill(~step.visual, -1.0)).argsort(dim=1)
        chosen = step.visual & (rank < count)
        if "attention" in step.memory:
            width = scores.shape[1]
            before, old = (F.pad(x, (0, max(0, width - x.shape[1])))[:, :width] for x in step.memory.values())
            stable = F.cosine_similarity(scores, before.to(scores), dim=1)[:, None] >= STABLE
            chosen = torch.where(stable, step.visual if self.as_released else old.to(chosen.device), chosen)
        step.memory.update(attention=scores, chosen=chosen)
        return chosen
