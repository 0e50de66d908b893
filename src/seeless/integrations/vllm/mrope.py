"""Positions of three axes: text stands where it would with all tokens, and kept tokens keep their own place."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from seeless.integrations.vllm.reducing import Kept
from seeless.integrations.vllm.serving import Serving

AXES = 3
DIGIT = 256  # whole numbers up to here are exact in bfloat16, in which offsets travel as two digits
CHANNELS = 2 * AXES


def as_digits(offsets: torch.Tensor) -> torch.Tensor:
    """Offsets `[tokens, 3]` as `[tokens, 6]` numbers below 256; offsets up to 65535.

    >>> as_digits(torch.tensor([[0, 3, 300]])).tolist()
    [[0, 0, 0, 3, 1, 44]]
    """
    return torch.stack([offsets // DIGIT, offsets % DIGIT], 2).flatten(1)


def from_digits(digits: torch.Tensor) -> torch.Tensor:
    """The inverse of `as_digits`.

    >>> from_digits(as_digits(torch.tensor([[0, 3, 300]]))).tolist()
    [[0, 3, 300]]
    """
    high, low = digits.long().unflatten(1, (AXES, 2)).unbind(2)
    return high * DIGIT + low


def runs(ids: Sequence[int], placeholders: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where runs of one placeholder begin and end.

    >>> list(runs([5, 9, 9, 1, 8, 8, 8], (8, 9)))
    [(1, 3), (4, 7)]
    """
    start = None
    for place, own in enumerate([*ids, None]):
        if start is not None and own != ids[start]:
            yield start, place
            start = None
        if start is None and own in placeholders:
            start = place


class ServingMRope(Serving):
    """Beside a model class of vLLM whose positions have three axes and which can be told those of pictures."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        self.is_multimodal_pruning_enabled = False  # vLLM's own, which the config switches on for its positions' sake
        if self.watch.parts is not None:
            self.use_data_parallel = False  # what is read of a picture must be known to every rank
        say_so_on_cpus()

    @property
    def placeholders(self) -> tuple[int, int]:
        """The ids that stand for tokens of pictures and videos."""
        return self.config.image_token_id, self.config.video_token_id  # type: ignore[attr-defined]

    def offsets(self, modality: str, data: Any) -> torch.Tensor:
        """`[run, 3]`, of all that stands from the first token of a picture to its last, how far it is from that place.

        Args:
            data: of the picture or video, as vLLM's processor gave it.
        """
        raise NotImplementedError

    def told(self, modality: str, kept: Kept, item: Any) -> torch.Tensor:
        offsets = self.offsets(modality, item).to(kept.places.device)[kept.places]
        return torch.cat([kept.tokens, as_digits(offsets).to(kept.tokens)], 1)

    def get_mrope_input_positions(self, input_tokens: list[int], mm_features: list[Any]) -> tuple[torch.Tensor, int]:
        """Positions `[3, tokens]` of a prompt, those of pictures' tokens still all at their beginning, and by how much
        the next token's is ahead of its place."""
        positions = torch.empty(AXES, len(input_tokens), dtype=torch.int64)
        features = iter(sorted(mm_features, key=lambda feature: feature.mm_position.offset))
        place = ahead = 0
        for start, end in runs(input_tokens, self.placeholders):
            positions[:, place:start] = torch.arange(place, start) + ahead
            positions[:, start:end] = start + ahead
            feature = next(features)
            after = start + ahead + int(self.offsets(feature.modality, feature.data.get_data()).max()) + 1
            place, ahead = end, after - end
        positions[:, place:] = torch.arange(place, len(input_tokens)) + ahead
        return positions, ahead

    def recompute_mrope_positions(
        self,
        input_ids: Any,
        multimodal_embeddings: Sequence[torch.Tensor],
        mrope_positions: torch.Tensor,
        num_computed_tokens: int,
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor, int]:
        """Fill in the positions of the tokens of pictures in this piece of the prompt."""
        length = mrope_positions.shape[1]
        if not multimodal_embeddings:
            return [], mrope_positions, int(mrope_positions[0, -1]) + 1 - length
        positions = mrope_positions.clone()
        every = runs(_on_host(input_ids), self.placeholders)
        pending = (start for start, end in every if end > num_computed_tokens)
        for start, own in zip(pending, multimodal_embeddings, strict=False):
            first = max(start, num_computed_tokens)
            offsets = from_digits(own[:, -CHANNELS:]).T.to(positions)
            positions[:, first : first + len(own)] = positions[:, start - 1 : start] + 1 + offsets
        delta = int(positions[0, -1]) + 1 - length
        return [own[:, :-CHANNELS] for own in multimodal_embeddings], positions, delta


def _on_host(ids: Any) -> Sequence[int]:
    return ids.tolist() if isinstance(ids, torch.Tensor) else ids


def say_so_on_cpus() -> None:
    """vLLM's runner for CPUs never asks whether a model tells positions itself; let it ask as the one for GPUs does."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.model_executor.models.interfaces import supports_multimodal_pruning
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    def enabled(runner: Any) -> bool:
        own = runner.model_config.multimodal_config
        model = getattr(runner, "model", None)
        return model is not None and supports_multimodal_pruning(model) and own.is_multimodal_pruning_enabled()

    CPUModelRunner.is_multimodal_pruning_enabled = property(enabled, lambda runner, value: None)
