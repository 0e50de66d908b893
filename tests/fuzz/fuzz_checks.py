"""What must hold of logits, reports and caches."""

import torch
from fuzz_talk import visual_in
from transformers.cache_utils import DynamicLayer

import seeless as sl
from layer_loop import in_flow
from tinies import LAYERS

TOLERANCE = 1e-4  # of logits; norms and softmax are float32 inside, whatever the model is


class Wrong(AssertionError):
    """Something does not hold."""


def expect(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


def compare(what: str, have: torch.Tensor, want: torch.Tensor, where: torch.Tensor | None = None) -> None:
    """Logits `[batch, seq, vocabulary]`, where a mask `[batch, seq]` says so."""
    expect(have.shape == want.shape, f"{what}: logits {list(have.shape)} in place of {list(want.shape)}")
    apart = (have.detach() - want.detach()).abs().amax(-1)
    apart = apart if where is None else apart.masked_fill(~where, 0)
    worst = float(apart.max()) if apart.numel() else 0.0
    if not worst < TOLERANCE:
        row, column = divmod(int(apart.nan_to_num(torch.inf).argmax()), apart.shape[1])
        raise Wrong(f"{what}: logits differ by {worst:.1e}, most in row {row}, column {column}")


def check_report(report: sl.Report, strategies: list[sl.Strategy], ids: torch.Tensor, real: torch.Tensor) -> None:
    """Who was there before and after each stage, and in every layer.

    Args:
        ids: `[batch, seq]` of the turn.
        real: `[batch, seq]` bool.
    """
    visual = visual_in(ids) & real
    before, kept = visual.sum(1).tolist(), [set(range(n)) for n in visual.sum(1).tolist()]
    flow = in_flow(strategies, LAYERS)
    planned = [(layer, part.name) for layer, part, _ in flow]
    may_drop_all = any(part.may_drop_all for _, part, _ in flow)
    expect([(own.layer, own.strategy) for own in report.stages] == planned, f"stages {report.stages}, not {planned}")
    expect(report.n_before == before, f"report: n_before {report.n_before}, but there were {before}")
    text = (real & ~visual).sum(1).tolist()
    expect(report.text == text, f"report: text {report.text}, but there was {text}")
    for stage in report.stages:
        where = f"report, {stage.strategy} before layer {stage.layer}"
        expect(stage.n_before == before, f"{where}: n_before {stage.n_before}, but {before} were left")
        for row, own in enumerate(stage.kept):
            expect(own.tolist() == sorted({*own.tolist()}), f"{where}: kept is not ascending in row {row}")
            expect(kept[row] >= {*own.tolist()}, f"{where}: row {row} keeps what had left")
            expect(len(own) == stage.n_after[row], f"{where}: n_after is not what row {row} keeps")
            expect(may_drop_all or not kept[row] or len(own) > 0, f"{where}: row {row} keeps nothing")
        before, kept = stage.n_after, [{*own.tolist()} for own in stage.kept]
    expect(bool(str(report)) and len(report.boxes) == len(ids) == len(report.to_dict()["text_tokens"]), "report: rows")
    for layer, seen in enumerate(report.visual):
        done = [stage.n_after for stage in report.stages if stage.layer <= layer]
        expect(seen == [*[report.n_before], *done][-1], f"report: visual[{layer}] is {seen}")


def check_cache(report: sl.Report, strategies: list[sl.Strategy], cache, columns: int) -> None:
    """How many columns each layer's cache holds after the first turn, where it forgets nothing, and how many bytes, of
    a single row without padding.

    Args:
        columns: of the turn, padding included.
    """
    if all(type(own) is DynamicLayer for own in cache.layers) and [columns] == [
        n + text for n, text in zip(report.n_before, report.text, strict=True)
    ]:
        held = sum(own.keys.nbytes + own.values.nbytes for own in cache.layers)
        expect(report.kv_bytes_after == held, f"report: kv_bytes_after {report.kv_bytes_after}, but it holds {held}")
    for layer, own in enumerate(cache.layers):
        if type(own) is not DynamicLayer or own.keys is None:
            continue
        held, cut = list(report.n_before), False
        for stage, (_, part, _) in zip(report.stages, in_flow(strategies, LAYERS), strict=True):
            if layer >= stage.layer or part.past == "trim":
                fewer = [after < before for before, after in zip(stage.n_before, stage.n_after, strict=True)]
                held = [n if less else m for n, m, less in zip(stage.n_after, held, fewer, strict=True)]
                cut |= any(fewer)
        want = max(n + text for n, text in zip(held, report.text, strict=True)) if cut else columns
        expect(own.keys.shape[-2] == want, f"cache of layer {layer}: {own.keys.shape[-2]} columns, not {want}")


def check_alone(number: int, together: sl.Report, alone: sl.Report) -> None:
    """A row keeps the same tokens in a batch and alone, unless rounding alone sets them apart."""
    for ours, its in zip(together.stages, alone.stages, strict=True):
        have, want = {*ours.kept[number].tolist()}, {*its.kept[0].tolist()}
        if have == want:
            continue
        where = f"row {number}, {ours.strategy} before layer {ours.layer}"
        if ours.scores is not None and its.scores is not None and ours.scores[number].shape == its.scores[0].shape:
            a, b = ours.scores[number].double(), its.scores[0].double()
            if len(have) == len(want) and (a - b).abs().nan_to_num().max() > 0 and _near(a, have ^ want, ours, number):
                return
        raise Wrong(f"{where}: keeps {sorted(have)} in the batch, {sorted(want)} alone")


def _near(scores: torch.Tensor, swapped: set[int], stage, number: int) -> bool:
    """Whether the tokens that were swapped scored the same but for rounding."""
    if len(scores) != stage.n_before[number] or max(swapped) >= len(scores):
        return False
    own = scores[sorted(swapped)]
    return bool((own.max() - own.min()) <= 1e-5 * scores.abs().nan_to_num().max())
