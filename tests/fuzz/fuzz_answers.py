"""`generate` in its forms: greedy, beams, samples, without a cache, in chunks, with drafts, a second turn."""

from collections.abc import Callable

import torch
from fuzz_checks import check_report, compare, expect
from fuzz_run import Run
from fuzz_talk import types_behind, visual_in
from fuzz_truth import truth
from transformers import DynamicCache

from seeless.core.host import CACHE
from tinies import END, IMAGE, START, VIDEO, make_inputs, repeats_patches


def answer(run: Run) -> None:
    """Raises `Wrong` where what `generate` gives is not what one pass over prompt and answer gives."""
    ways: dict[str, Callable[[Run], None]] = {
        "beams": beams,
        "sample": samples,
        "several": samples,
        "no cache": without_cache,
        "again": again,
    }
    ways.get(run.case.options["how"], greedy)(run)


def generate(run: Run, inputs: dict, **options):
    return run.model.generate(
        **inputs,
        max_new_tokens=run.case.options["tokens"],
        return_dict_in_generate=True,
        output_logits=True,
        **{"do_sample": False, **options},
    )


def rows_in_flow(run: Run, rows: list[int] | None = None) -> list:
    """The prefill of the prompt, of some of its rows, checked; none where there is no picture."""
    inputs = run.talk.turns[0]
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    if not run.reports:
        expect(not run.strategies or not visual_in(ids).any(), "no report of a prompt with pictures")
        return []
    if len(run.reports[0].n_before) == len(ids):
        check_report(run.reports[0], run.strategies, ids, real)
    return [run.prefill(0, 0, ids.shape[1], rows)]


def full(run: Run, sequences: torch.Tensor) -> dict:
    """The inputs of prompt and answer at once."""
    inputs = run.talk.turns[0]
    new = sequences.shape[1] - inputs["input_ids"].shape[1]
    return {**run.tiny.extend(inputs, new), "input_ids": sequences}


def judge(run: Run, have: torch.Tensor, whole: dict, prefills: list, start: int) -> None:
    """Logits of an answer, whose first token is in column `start`."""
    if run.case.dtype == "bfloat16":
        expect(bool(have.isfinite().all()), "logits of the answer are not finite")
        return
    want = truth(run.untouched, run.strategies, whole, prefills)[:, start - 1 : start - 1 + have.shape[1]]
    compare("answer", have, want)


def greedy(run: Run) -> None:
    """In one go, in chunks, on a static cache, or with drafts from the prompt, which are verified in one forward."""
    options = run.case.options
    more = {
        "static": {"cache_implementation": "static"},
        "chunks": {"prefill_chunk_size": options["chunk"]},
        "lookup": {"prompt_lookup_num_tokens": 2},
    }.get(options["how"], {})
    inputs = run.talk.turns[0]
    out = generate(run, inputs, **more)
    if options["how"] in ("chunks", "lookup") and run.states is not None:  # states were noted piece by piece
        return
    judge(run, torch.stack(out.logits, 1), full(run, out.sequences), rows_in_flow(run), inputs["input_ids"].shape[1])


def samples(run: Run) -> None:
    """By chance, one answer per prompt or several."""
    inputs, several = run.talk.turns[0], run.case.options["how"] == "several"
    count = run.case.options["beams"] if several else 1
    torch.manual_seed(run.case.seed)
    never = [IMAGE, VIDEO, START, END, *run.tiny.never]
    out = generate(run, inputs, do_sample=True, num_return_sequences=count, suppress_tokens=never)
    logits, batch = torch.stack(out.logits, 1), len(inputs["input_ids"])
    for number in range(count):
        rows = [row * count + number for row in range(batch)]
        whole = full(run, out.sequences[rows])
        judge(run, logits[rows], whole, rows_in_flow(run, rows), inputs["input_ids"].shape[1])


def beams(run: Run) -> None:
    """The sum of the chances of an answer's tokens; all beams of a prompt keep the same tokens."""
    inputs, count = run.talk.turns[0], run.case.options["beams"]
    out = generate(run, inputs, num_beams=count, output_scores=True, length_penalty=1.0)
    if repeats_patches(run.model):  # the stock model's beams see patches that are not theirs
        return
    batch, start = inputs["input_ids"].shape
    for stage in run.reports[0].stages if run.reports else []:
        for row, own in enumerate(stage.kept):
            first = stage.kept[row - row % count]
            expect(own.tolist() == first.tolist(), "beams of one prompt keep other tokens")
    if run.case.dtype == "bfloat16":
        return
    prefills = rows_in_flow(run, [row * count for row in range(batch)])
    want = truth(run.untouched, run.strategies, full(run, out.sequences), prefills).double().log_softmax(-1)
    answers = out.sequences[:, start:]
    chances = want[:, start - 1 : -1].gather(2, answers[..., None])[..., 0].mean(1)
    apart = float((chances - out.sequences_scores.double()).abs().max())
    expect(apart < 1e-3, f"scores of the beams' answers differ by {apart:.1e}")


def without_cache(run: Run) -> None:
    """Every step is a prefill of prompt and answer so far."""
    inputs = run.talk.turns[0]
    start = inputs["input_ids"].shape[1]
    out = generate(run, inputs, use_cache=False)
    seen = bool(run.strategies) and bool(visual_in(inputs["input_ids"]).any())
    expect(len(run.reports) == len(out.logits) * seen, f"{len(run.reports)} reports of {len(out.logits)} steps")
    for step, logits in enumerate(out.logits):
        length = start + step
        prefills = [run.prefill(step, 0, length)] if seen else []
        judge(run, logits[:, None], full(run, out.sequences[:, :length]), prefills, length)


def again(run: Run) -> None:
    """A second turn on the cache of the first, of text or with a picture."""
    inputs, more = run.talk.turns[0], run.case.options["more"]
    text, batch = run.model.config.get_text_config(), len(inputs["input_ids"])
    first = generate(run, inputs, **{CACHE: DynamicCache(config=text)})
    prefills, begun = rows_in_flow(run), first.sequences.shape[1] - 1  # the last token is not in the cache
    turn = make_inputs(run.model, run.tiny, [more] * batch)
    turn |= types_behind(run.tiny, turn["input_ids"])
    tokens = ("input_ids", "attention_mask", *run.tiny.new_token_types)
    given = {name: value for name, value in turn.items() if name not in tokens}
    before = full(run, first.sequences)
    for name in tokens:
        if name in before:
            given[name] = torch.cat([before[name], turn[name]], 1)
    out = generate(run, given, **{CACHE: first[CACHE]})
    start, new = given["input_ids"].shape[1], out.sequences.shape[1] - given["input_ids"].shape[1]
    if len(run.reports) > len(prefills):
        prefills.append(run.prefill(len(prefills), begun, start))
        own = given["input_ids"][:, begun:], given["attention_mask"][:, begun:].bool()
        check_report(run.reports[-1], run.strategies, *own)
    together = [[*row, *more] for row in run.case.turns[0]]
    whole = {**make_inputs(run.model, run.tiny, together), **run.tiny.extend(given, new), "input_ids": out.sequences}
    for name in set(given) - set(tokens):  # pictures of both turns, row by row
        whole[name] = make_inputs(run.model, run.tiny, together)[name]
    judge(run, torch.stack(out.logits, 1), whole, prefills, start)
