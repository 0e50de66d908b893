"""Which methods suit a use, by what is known of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import seeless as sl
from seeless.advice.uses import MADE_FOR_VIDEOS, RANK_BY_ALL_ANSWERS, READ_THE_QUESTION, Use
from seeless.integrations.vllm.launching import check_served
from seeless.named.knobs import DEFAULT_KEEP
from seeless.named.strategies import choose
from seeless.registry import strategy_class
from seeless.strategy import Stage


@dataclass(frozen=True)
class Facts:
    """What decides whether a method suits a use.

    Args:
        published: it is of a paper. Others are there to compare with (random, uniform, pool), or made of several.
        any_question: another question about the same picture keeps the same tokens.
        before_decoder: it acts in the tower or where embeddings enter the decoder.
        for_videos, for_pictures: what it was made for.
        fits_all_answers: in training, it keeps what does not hang on one question of several.
        served: vLLM can serve with it.
    """

    name: str
    published: bool
    any_question: bool
    before_decoder: bool
    for_videos: bool
    for_pictures: bool
    fits_all_answers: bool
    served: bool


def facts_of(name: str, model_types: Sequence[str]) -> Facts:
    """The facts of a method of the package.

    Args:
        model_types: "served" says whether vLLM can serve one of them with it.
    """
    cls, any_question = strategy_class(name), name not in READ_THE_QUESTION
    return Facts(
        name,
        published=bool(cls.paper),
        any_question=any_question,
        before_decoder=cls.stage is not Stage.LAYER,
        for_videos=name in MADE_FOR_VIDEOS,
        for_pictures=name not in MADE_FOR_VIDEOS,
        fits_all_answers=not cls.no_training and (any_question or name in RANK_BY_ALL_ANSWERS),
        served=any(_is_served(kind, name) for kind in model_types),
    )


def suits(use: Use, facts: Facts) -> bool:
    """Whether a method is worth advising for a use."""
    return facts.published and all(getattr(facts, need.fact) for need in use.needs)


def _is_served(model_type: str, name: str) -> bool:
    try:
        check_served(model_type, choose(name).build({"keep": DEFAULT_KEEP}))
    except sl.SeelessError:
        return False
    return True
