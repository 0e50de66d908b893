"""What vLLM's processor of a model does differently: fewer placeholders, the budget in every hash, and passed on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from seeless.core.relevance import read_question
from seeless.errors import InputError
from seeless.families import family_of
from seeless.integrations.vllm.budgets import (
    MODALITIES,
    QUESTION,
    as_bytes,
    as_numbers,
    budget_field,
    fingerprint,
    question_field,
    without,
)
from seeless.integrations.vllm.counts import plan
from seeless.integrations.vllm.layouts import Layouts
from seeless.integrations.vllm.served import KEY, for_request, question_of, reads_the_prompt, strategy_of
from seeless.strategy import Strategy

if TYPE_CHECKING:
    from vllm.multimodal.processing import PromptUpdateDetails


def reducing_info(stock: type) -> type:
    """vLLM's processing info of a model, knowing how many tokens a picture has at most, whatever its budget."""

    class ReducingInfo(stock):  # type: ignore[misc, valid-type]
        @cached_property
        def strategy(self) -> Strategy:
            config = self.get_hf_config()
            return strategy_of(getattr(config, KEY), family_of(config.model_type).mrope)

        def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
            known = super().get_mm_max_tokens_per_item(seq_len, mm_counts)
            return known if known is not None else self._most(seq_len, mm_counts)

        def _most(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
            most = {"image": self.get_max_image_tokens()}
            if "video" in mm_counts:
                most["video"] = self.get_max_video_tokens(seq_len, mm_counts)
            return {modality: number for modality, number in most.items() if modality in mm_counts}

    return ReducingInfo


def reducing_processor(stock: type, layouts_of: Callable[[Any], Layouts]) -> type:
    """vLLM's processor of a model, with the placeholders of a picture cut to its budget.

    Args:
        layouts_of: makes the layouts of its pictures from its config.
    """
    from vllm.multimodal.inputs import MultiModalFieldConfig
    from vllm.multimodal.parse import DictEmbeddingItems, EmbeddingItems
    from vllm.multimodal.processing import PromptUpdateDetails

    class ReducingProcessor(stock):  # type: ignore[misc, valid-type]
        @cached_property
        def layouts(self) -> Layouts:
            return layouts_of(self.info.get_hf_config())

        def strategy_for(self, options: Mapping[str, Any]) -> Strategy:
            return question_of(for_request(self.info.strategy, options.get(KEY)), options.get(QUESTION))

        def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
            dummy = super().get_dummy_inputs(*args, **kwargs)
            return replace(dummy, hf_processor_mm_kwargs={QUESTION: "What is this?"})

        def apply(self, inputs: Any, timing_ctx: Any) -> Any:
            options = inputs.hf_processor_mm_kwargs
            if QUESTION not in options and inputs.mm_data_items and reads_the_prompt(self.strategy_for(options)):
                inputs = replace(inputs, hf_processor_mm_kwargs={**options, QUESTION: self.question(inputs.prompt)})
            return super().apply(inputs, timing_ctx)

        def question(self, ids: Sequence[int]) -> str:
            """What a prompt asks about its pictures: the text behind the last of them up to where the answer begins."""
            config = self.info.get_hf_config()
            names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
            marks = {getattr(config, name, None) for name in names}
            after = next((place for place, own in enumerate(reversed(ids)) if own in marks), len(ids))
            text = read_question(self.info.model_id, list(ids[len(ids) - after :])).strip()
            if not text:
                raise InputError(f"{self.info.strategy.name} needs a question behind the last picture of a prompt")
            return text

        def _get_mm_hashes(self, inputs: Any) -> Any:
            own = fingerprint(self.strategy_for(inputs.hf_processor_mm_kwargs))
            return super()._get_mm_hashes(
                replace(inputs, hf_processor_mm_kwargs={**inputs.hf_processor_mm_kwargs, KEY: own})
            )

        def _get_hf_mm_inputs(self, mm_items: Any, hf_kwargs: Mapping[str, Any]) -> Any:
            found = super()._get_hf_mm_inputs(mm_items, without(hf_kwargs))
            strategy = self.strategy_for(hf_kwargs)
            keep = as_numbers(strategy.keep)  # type: ignore[arg-type]
            for modality in MODALITIES:
                if not (count := mm_items.get_count(modality, strict=False)):
                    continue
                if isinstance(mm_items[modality], EmbeddingItems | DictEmbeddingItems):
                    raise InputError(
                        f"a {modality} came encoded already; give its pixels, of which tokens can be dropped"
                    )
                found.passthrough_data[budget_field(modality)] = torch.tensor([keep] * count, dtype=torch.float64)
                if reads_the_prompt(self.info.strategy):
                    asked = as_bytes(strategy.question)  # type: ignore[attr-defined]
                    found.passthrough_data[question_field(modality)] = [asked] * count
            return found

        def _call_hf_processor(self, hf_data: Any, hf_kwargs: Mapping[str, Any]) -> Any:
            return super()._call_hf_processor(hf_data, without(hf_kwargs))

        def _get_mm_fields_config(self, hf_inputs: Any, hf_processor_mm_kwargs: Mapping[str, Any]) -> Any:
            own = {
                name: MultiModalFieldConfig.batched(modality, keep_on_cpu=True)
                for modality in MODALITIES
                for name in (budget_field(modality), question_field(modality))
                if name in hf_inputs
            }
            return {**super()._get_mm_fields_config(hf_inputs, without(hf_processor_mm_kwargs)), **own}

        def _get_prompt_updates(
            self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
        ) -> list:
            strategy = self.strategy_for(hf_processor_mm_kwargs)
            stock = super()._get_prompt_updates(mm_items, without(hf_processor_mm_kwargs), out_mm_kwargs)
            return [
                replace(update, replacement=partial(self._cut, strategy, update, out_mm_kwargs[update.modality]))
                if update.modality in out_mm_kwargs
                else update
                for update in stock
            ]

        def _cut(self, strategy: Strategy, stock: Any, items: Any, number: int) -> "PromptUpdateDetails":
            """What stands in the prompt for one picture: as in vLLM, but with as many placeholders as tokens stay."""
            data = items[number].get_data()
            whole = self.whole(stock, number, data)
            ids = torch.tensor(whole.full)
            shown = torch.ones_like(ids, dtype=torch.bool) if whole.is_embed is None else whole.is_embed(whole.full)
            image = self.layouts.of(stock.modality, data)
            if int(shown.sum()) != len(image):
                raise InputError(
                    f"vLLM gives this {stock.modality} {int(shown.sum())} tokens, but its layout has {len(image)}; "
                    "leave the strategy out for such a model, and report its config and the size"
                )
            return self.cut(whole, ids, shown, plan(strategy, image).kept)

        def whole(self, stock: Any, number: int, data: Mapping[str, Any]) -> "PromptUpdateDetails":
            """What stands in the prompt for one picture that keeps all its tokens."""
            found = stock.replacement(number) if callable(stock.replacement) else stock.replacement
            return found if isinstance(found, PromptUpdateDetails) else PromptUpdateDetails.from_seq(found)

        def cut(
            self, whole: "PromptUpdateDetails", ids: torch.Tensor, shown: torch.Tensor, kept: int
        ) -> "PromptUpdateDetails":
            """The same with `kept` of the placeholders that are `shown`."""
            return PromptUpdateDetails(ids[~shown | (shown.cumsum(0) <= kept)].tolist(), whole.is_embed)

    return ReducingProcessor
