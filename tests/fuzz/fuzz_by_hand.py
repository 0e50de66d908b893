"""Forwards by hand: a conversation turn by turn on one cache, or a prompt without any."""

import copy

import torch
from fuzz_checks import check_alone, check_cache, check_report, compare, expect
from fuzz_run import Run
from fuzz_talk import positions_of, visual_in
from fuzz_truth import truth
from transformers import DynamicCache, StaticCache

from seeless.core.host import CACHE, cache_in
from tinies import make_inputs

ASIDE = 2  # tokens of a turn that is taken back


def by_hand(run: Run) -> None:
    """Raises `Wrong` where a turn's logits are not those of one pass over the whole conversation."""
    talk, options = run.talk, run.case.options
    positions = positions_of(options["positions"], talk, run.untouched)
    cache, prefills, found = new_cache(run), [], []
    who = torch.arange(len(talk.mask))  # which row of the conversation each row of the cache goes on with
    for number in range(len(talk.turns)):
        if (what := options["between"].get(number)) is not None:
            cache, who = interlude(run, what, number, cache, who, positions)
        given = inputs_of(run, number, who, positions)
        out = run.model(**given, **({"use_cache": False} if options["cache"] == "none" else {CACHE: cache}))
        cache, start, end = cache_in(out), talk.start(number), talk.ends[number]
        own = talk.turns[number]
        if len(run.reports) > len(prefills):
            prefills.append(run.prefill(len(prefills), start, end))
            check_report(run.reports[-1], run.strategies, own["input_ids"], own["attention_mask"].bool())
            if number == 0 and cache is not None:
                check_cache(run.reports[-1], run.strategies, cache, end)
        else:
            expect(not run.strategies or not visual_in(own["input_ids"]).any(), "no report of a turn with pictures")
        logits = torch.empty_like(out.logits)
        logits[who] = out.logits
        found.append(logits)
    check(run, prefills, found, positions)
    if options["alone"] and run.case.dtype != "bfloat16" and visual_in(talk.turns[0]["input_ids"]).any():
        alone(run, positions)


def check(run: Run, prefills, found: list[torch.Tensor], positions: torch.Tensor | None) -> None:
    if run.case.dtype == "bfloat16":
        for number, logits in enumerate(found):
            real = run.talk.turns[number]["attention_mask"].bool()[:, -logits.shape[1] :]
            expect(bool(logits[real].isfinite().all()), f"turn {number}: logits are not finite")
        return
    given = {} if positions is None or run.tiny.mrope else {"position_ids": positions}
    want = truth(run.untouched, run.strategies, run.talk.whole, prefills, **given)
    for number, logits in enumerate(found):
        own = slice(run.talk.ends[number] - logits.shape[1], run.talk.ends[number])
        compare(f"turn {number}", logits, want[:, own], run.talk.mask[:, own].bool())


def new_cache(run: Run):
    """The cache that the first turn is given."""
    text = run.model.config.get_text_config()
    kinds = {
        "given": lambda: DynamicCache(config=text),  # as the model makes it
        "keeps": DynamicCache,  # forgets nothing, whatever the windows
        "static": lambda: StaticCache(config=text, max_cache_len=run.talk.ends[-1] + ASIDE),
    }
    make = kinds.get(run.case.options["cache"])
    return None if make is None else make()


def inputs_of(run: Run, number: int, who: torch.Tensor, positions: torch.Tensor | None) -> dict:
    """What a turn gives to the model, with the rows in the order of the cache."""
    talk, options = run.talk, run.case.options
    start, end = talk.start(number), talk.ends[number]
    given = dict(talk.turns[number])
    for name in ("input_ids", *run.tiny.new_token_types):
        if name in given:
            given[name] = given[name][who]
    mask = talk.mask[who, :end]
    kind = "long" if options["mask"] == "none" and not talk.mask.all() else options["mask"]
    given["attention_mask"] = {"long": mask, "bool": mask.bool(), "none": None}[kind]
    if positions is not None:
        given["position_ids"] = at(positions, who)[..., start:end]
    ids = given["input_ids"]
    if options["embeds"] and visual_in(ids).any():
        given["inputs_embeds"] = run.model.get_input_embeddings()(given.pop("input_ids"))
    if options["logits"] and run.model._supports_logits_to_keep():
        given["logits_to_keep"] = min(options["logits"], ids.shape[1])
    return given


def at(positions: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
    """Position ids `[..., batch, seq]` of some rows."""
    return positions.expand(*positions.shape[:-2], len(who), -1)[..., who, :]


def interlude(run: Run, what: str, number: int, cache, who: torch.Tensor, positions: torch.Tensor | None):
    """What is done to a cache before a turn: "copy" goes on with a copy, "crop" takes a turn back, "reorder" the rows.

    Returns:
        The cache to go on with, and its rows.
    """
    if what == "reorder":
        order = torch.arange(len(who)).roll(1)
        cache.reorder_cache(order)
        return cache, who[order]
    twin = copy.deepcopy(cache) if what == "copy" else cache
    end = run.talk.ends[number - 1]
    mask = torch.nn.functional.pad(run.talk.mask[who, :end], (0, ASIDE), value=1)
    given = {"input_ids": torch.full((len(who), ASIDE), 7), "attention_mask": mask}
    for name, value in run.tiny.new_token_types.items():
        given[name] = torch.full_like(given["input_ids"], value)
    if positions is not None:
        given["position_ids"] = at(positions, who)[..., end - 1 : end] + 1 + torch.arange(ASIDE)
    run.model(**given, **{CACHE: cache})
    if what == "crop":
        cache.crop(-ASIDE)
    return twin, who


def alone(run: Run, positions: torch.Tensor | None) -> None:
    """Every row of the first turn, alone, keeps the same tokens; to DART, which measures rotated keys, only where it
    begins at the same position."""
    dart = any(part.name == "dart" for strategy in run.strategies for part in strategy.parts())
    if dart and not run.tiny.mrope and positions is None:
        return
    turn = run.talk.turns[0]
    for row, parts in enumerate(run.case.turns[0]):
        if any(isinstance(part, str) for part in parts):
            inputs = make_inputs(run.model, run.tiny, [parts])
            if not run.tiny.mrope and positions is not None:
                real = turn["attention_mask"][row].bool()
                inputs["position_ids"] = positions[row : row + 1, : len(real)][:, real]
            run.model(**inputs)
            if run.strategies:
                check_alone(row, run.reports[0], run.reports[-1])
