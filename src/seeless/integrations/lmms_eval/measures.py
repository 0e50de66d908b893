"""What every answer took, and the figures of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from seeless.integrations.answering import Effort


@dataclass(frozen=True, kw_only=True)
class Measure(Effort):
    """The effort of one request.

    Args:
        task, doc_id: which document of which task it was about.
        choice: which of its choices; None where an answer was written.
    """

    task: str
    doc_id: int
    choice: int | None = None


def figures(measures: Sequence[Measure]) -> dict[str, float]:
    """Means over requests, overall and, if there are several tasks, for each.

    Requests served from a cache of responses are not measured, and no part of it.
    """
    result: dict[str, float] = {"measured_requests": len(measures)}
    result |= _means(measures)
    tasks = sorted({measure.task for measure in measures})
    for task in tasks if len(tasks) > 1 else []:
        own = [measure for measure in measures if measure.task == task]
        result |= {f"{task}/{name}": value for name, value in _means(own).items()}
    return result


def _means(measures: Sequence[Measure]) -> dict[str, float]:
    if not measures:
        return {}
    flops, untouched = fmean(m.flops for m in measures), fmean(m.flops_untouched for m in measures)
    before, average = fmean(m.visual_before for m in measures), fmean(m.visual_average for m in measures)
    return {
        "visual_tokens_before": before,
        "visual_tokens": average,
        "visual_tokens_share": average / before if before else 1.0,
        "input_tokens": fmean(m.input_tokens for m in measures),
        "prefill_seconds": fmean(m.prefill_seconds for m in measures),
        "flops_untouched": untouched,
        "flops": flops,
        "flops_share": flops / untouched,
    }
