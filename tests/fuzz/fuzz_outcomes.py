"""Running a case, and what came of it."""

import copy
import re
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from fuzz_answers import answer
from fuzz_by_hand import by_hand
from fuzz_cases import Case, draw
from fuzz_checks import Wrong, expect
from fuzz_families import BY_NAME, model_of, untouched
from fuzz_fields import build
from fuzz_run import Run
from fuzz_talk import Talk, talk_of
from fuzz_training import train
from matrix import CLIP
from test_training import set_checkpointing
from transformers import AutoTokenizer

import seeless as sl
from seeless.core import ahead, capture, question_answers
from seeless.core.host import is_stock

TESTS = Path(__file__).parents[1]
OF_MODELS = ("tiny_models.py",)  # has the attention kernel "fused", which refuses some calls
# Attributes that transformers leaves on a model once it has been asked for some outputs, or has generated.
NOT_OURS = ("_previous_max_cache_length", "_output_capturing_hooks_installed")
MODES = {"by hand": by_hand, "generate": answer, "train": train}
TOKENIZER = AutoTokenizer.from_pretrained(CLIP)  # of words: the tiny models have none of their own


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Args:
        kind: "right"; "refused", by an error of seeless; "stock", where the model does no better without strategies;
            or "wrong".
        message: of the error, if there was one.
    """

    case: Case
    kind: str
    message: str = ""

    @property
    def sort(self) -> str:
        """The beginning of the message without numbers and names of what was given, to count it by."""
        return re.sub(r"\d+(\.\d+)?", "#", self.message)[:110]


def outcome_of(seed: int) -> Outcome:
    """Draw the case of a number and run it."""
    case = draw(seed)
    try:
        strategies = [build(spec) for spec in case.strategies]
    except sl.SeelessError as error:
        return Outcome(case, "refused", f"{type(error).__name__}: {error}")
    try:
        run_case(case, strategies)
    except sl.SeelessError as error:
        return Outcome(case, "refused", f"{type(error).__name__}: {error}")
    except Exception as error:
        excused = not in_the_fuzz(error) and fails_untouched(case)
        return Outcome(case, "stock" if excused else "wrong", told(error))
    return Outcome(case, "right")


def in_the_fuzz(error: Exception) -> bool:
    """Whether an exception other than a failed check comes out of the fuzz itself, or out of the oracle."""
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return not isinstance(error, Wrong) and TESTS in last.parents and last.name not in OF_MODELS


def told(error: Exception) -> str:
    """A failed check in a sentence, any other exception with where it came from."""
    if isinstance(error, Wrong):
        return str(error)
    return f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-5)}"


def fails_untouched(case: Case) -> bool:
    """Whether the model fails as well without strategies, against the same oracle with nothing hidden."""
    try:
        run_case(case, [])
    except Exception:
        return True
    return False


def run_case(case: Case, strategies: list[sl.Strategy]) -> None:
    """Raises `Wrong`, or whatever comes out of the model."""
    tiny, dtype = BY_NAME[case.family], getattr(torch, case.dtype)
    model, oracle = model_of(case.family, case.backend, dtype), untouched(case.family, dtype)
    training = case.mode == "train"
    if training:
        model, oracle = copy.deepcopy(model).train(), copy.deepcopy(oracle)
        set_checkpointing(model, case.options["checkpointing"])
    talk = talk_of(model, tiny, case.turns, case.padding, case.columns)
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(question_answers, "load_tokenizer", return_value=TOKENIZER))
        if case.options["fresh"]:
            stack.enter_context(mock.patch.object(capture, "_checked", set()))
            stack.enter_context(mock.patch.object(ahead, "_alone", {}))
        if not training:
            stack.enter_context(torch.inference_mode() if case.options["inference_mode"] else torch.no_grad())
        before = None if training else traces(model, talk)
        resolved = [sl.api.resolved(strategy, model) for strategy in strategies]
        with Run(case, tiny, model, oracle, talk, resolved) as run:
            MODES[case.mode](run)
        if before is not None:
            after = traces(model, talk)
            changed = sorted(name for name, _ in after[0] ^ before[0])
            expect(not changed, f"the handle left traces: {changed}")
            expect(torch.equal(after[1], before[1]), "the model gives other logits than it gave before the handle")


def traces(model, talk: Talk) -> tuple[set[tuple[str, int]], torch.Tensor]:
    """Names of attributes and numbers of hooks of every module, and what the model makes of the first turn."""
    logits = model(**talk.turns[0], use_cache=False).logits.nan_to_num()
    own = set()
    for name, module in model.named_modules():
        own |= {(f"{name}.{key}", 0) for key in vars(module) if key not in NOT_OURS}
        own.add((f"hooks of {name}", sum(not is_stock(hook) for hook in module._forward_hooks.values())))
    return own, logits
