"""What vLLM can serve with fewer tokens: which models, by which methods, and why not by the others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from seeless.errors import BudgetError, did_you_mean
from seeless.integrations.vllm.errors import NotServed
from seeless.registry import from_dict
from seeless.strategy import LayerStrategy, Stage, Strategy

KEY = "seeless"  # in vLLM's hf_overrides, and in the mm_processor_kwargs of a request
PREFIX = "Seeless"
MODULES = "seeless.integrations.vllm.models"
SERVED = {  # vLLM's architecture, and the class of seeless for it
    "LlavaForConditionalGeneration": f"{MODULES}.llava:SeelessLlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration": f"{MODULES}.llava_next:SeelessLlavaNextForConditionalGeneration",
    "LlavaOnevisionForConditionalGeneration": f"{MODULES}.llava_onevision:SeelessOnevisionForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration": f"{MODULES}.qwen2_5_vl:SeelessQwen25VLForConditionalGeneration",
    "Qwen3VLForConditionalGeneration": f"{MODULES}.qwen3_vl:SeelessQwen3VLForConditionalGeneration",
    "Qwen3_5ForConditionalGeneration": f"{MODULES}.qwen3_5:SeelessQwen35ForConditionalGeneration",
    "InternVLForConditionalGeneration": f"{MODULES}.internvl:SeelessInternVLForConditionalGeneration",
}
MODEL_TYPES = ("llava", "llava_next", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "internvl")
DEEP = 1024  # layers of a decoder in which any layer that a strategy names lies
PER_REQUEST = ("keep",)  # what a request may set

IN_THE_DECODER = (
    "{name} drops tokens between decoder layers, but vLLM keeps one KV cache length per request for all layers, shares "
    "prefixes of it between requests with other text behind, and compiles the decoder for rows that do not change; run "
    "it on transformers (seeless.apply), or serve with a method that acts before the decoder"
)
IN_THE_TOWER = (
    "{name} acts in front of layers of the vision tower, which vLLM runs in its own code; run it on "
    "transformers (seeless.apply), or serve with a method that acts after the tower"
)
TWO_PROMPTS = (
    "{name} looks at a second prompt through the decoder, and vLLM encodes pictures before any decoder layer runs; run "
    "it on transformers (seeless.apply)"
)
MADE_OF_OTHERS = "{name} is made of other strategies, and vLLM serves one at a time; serve one of them"
CONTENT_DECIDES = (
    "{name} lets the picture decide how many tokens stay, but vLLM must know before it sees the picture, to lay "
    "out its prompt; give keep= a number of tokens or a share, and no threshold, to a method that keeps to it"
)
ACROSS_PICTURES = (
    "scope='row' ranks all pictures of a prompt together, but vLLM encodes each on its own and uses it again in other "
    "prompts; use 'image' or 'crop'"
)
GAPS = (
    "positions='keep', {name}'s way on this model, leaves gaps in the positions of a prompt, but vLLM numbers tokens "
    "one after the other; give positions='renumber', or use a model with M-RoPE (Qwen-VL)"
)
NO_GAPS = (
    "positions='renumber' has no meaning on a model with M-RoPE, whose positions are coordinates of time, height and "
    "width; leave positions out or use 'keep'"
)


def reason_against(strategy: Strategy, mrope: bool) -> str | None:
    """Why vLLM cannot serve with this strategy; None if it can.

    Args:
        mrope: whether the model's positions have three axes.
    """
    reason = _reason(strategy, mrope)
    return None if reason is None else reason.format(name=strategy.name or type(strategy).__name__)


def _reason(strategy: Strategy, mrope: bool) -> str | None:
    if type(strategy).parts is not Strategy.parts:
        return MADE_OF_OTHERS
    if strategy.stage is Stage.TOWER:
        return IN_THE_TOWER
    if type(strategy).prepare is not Strategy.prepare:
        return TWO_PROMPTS
    if any(strategy.layers(DEEP)):
        return IN_THE_DECODER
    if strategy.scope == "row":
        return ACROSS_PICTURES
    if strategy.promised(1, [0], [0]) is None:
        return CONTENT_DECIDES
    positions = strategy.positions or ("keep" if mrope else strategy.positions_at(0))
    if positions == "keep" and not mrope:
        return GAPS
    return NO_GAPS if positions == "renumber" and mrope else None


def strategy_of(given: Any, mrope: bool) -> Strategy:
    """The strategy that `hf_overrides={"seeless": given}` asks for.

    Raises:
        UnknownStrategy, BudgetError: no such name, or a field that cannot be so.
        NotServed: vLLM cannot serve with it.
    """
    if not isinstance(given, Mapping) or "strategy" not in given:
        raise BudgetError(
            f'hf_overrides={{"seeless": {given!r}}} names no strategy; write {{"seeless": {{"strategy": "vispruner", '
            '"keep": 0.25}}'
        )
    strategy = plain(from_dict(given))
    if (reason := reason_against(strategy, mrope)) is not None:
        raise NotServed(reason)
    return strategy


def reads(strategy: Strategy) -> bool:
    """Whether a strategy may ask what layers of the tower show."""
    return type(strategy).tower is None or bool(type(strategy).tower)


def reads_the_reader(strategy: Strategy) -> bool:
    """Whether a strategy may ask the layer of the tower that reads what the projector takes."""
    declared = type(strategy).tower
    return declared is None or any(signal.startswith("reader_") for signal in declared)


def reads_the_prompt(strategy: Strategy) -> bool:
    """Whether a strategy wants the question that stands in the prompt."""
    return getattr(strategy, "question", "") is None


def question_of(strategy: Strategy, text: str | None) -> Strategy:
    """The same for a prompt with this question, if it wants any."""
    if text is None or not reads_the_prompt(strategy):
        return strategy
    changed: dict[str, Any] = {"question": text}
    return replace(strategy, **changed)


def plain(strategy: Strategy) -> Strategy:
    """The same with its budget in `keep` alone, where it acts once."""
    changed: dict[str, Any] = {}
    if isinstance(strategy, LayerStrategy) and strategy.layer == [0]:
        changed["layer"] = 0
    keep = strategy.keep if strategy.average is None else strategy.average
    if isinstance(keep, list) and len(keep) == 1:
        keep = keep[0]
    if not isinstance(keep, list):
        changed |= {"keep": keep, "average": None}
    return replace(strategy, **changed)


def for_request(strategy: Strategy, asked: Any) -> Strategy:
    """The strategy with the budget that `mm_processor_kwargs={"seeless": asked}` of one request asks for.

    Raises:
        BudgetError: it asks for anything else, or for a budget that cannot be.
    """
    if asked is None:
        return strategy
    if not isinstance(asked, Mapping):
        raise BudgetError(
            f'mm_processor_kwargs={{"seeless": {asked!r}}} is no budget; write {{"seeless": {{"keep": 64}}}}'
        )
    for name in asked:
        if name not in PER_REQUEST:
            near = did_you_mean(str(name), PER_REQUEST) or "a request may set keep"
            raise BudgetError(f"a request cannot set {name!r}, which all requests of this server share; {near}")
    return replace(strategy, **asked)
