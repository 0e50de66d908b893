"""What a model of vLLM does differently: its tower runs on few pictures at once, and only what stays leaves it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from seeless.core.images import Image
from seeless.errors import InputError
from seeless.families import family_of
from seeless.integrations.vllm.batches import batches, taken
from seeless.integrations.vllm.budgets import MODALITIES, as_text, budget_field, from_numbers, question_field
from seeless.integrations.vllm.layouts import Layouts, through
from seeless.integrations.vllm.reducing import Kept, reduce
from seeless.integrations.vllm.served import KEY, for_request, question_of, reads, strategy_of
from seeless.integrations.vllm.tower import Parts, TowerView, Watch, Words
from seeless.strategy import Strategy


class Serving:
    """Beside a model class of vLLM, before it in the order of bases.

    A subclass says where the parts of its tower are (`parts`), what its projector is (`project`), and how the tokens of
    its pictures lie (`layouts_of`).
    """

    layouts_of: Callable[[Any], Layouts]

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        config = vllm_config.model_config.hf_config
        self.family = family_of(config.model_type)
        self.served = strategy_of(getattr(config, KEY), self.family.mrope)
        self.layouts = self.layouts_of(config)
        self.at_once = vllm_config.scheduler_config.max_num_encoder_input_tokens
        self.width = config.get_text_config().hidden_size
        view = TowerView(config, Words(self.language_model))  # type: ignore[attr-defined]
        self.watch = Watch(view, self.parts() if reads(self.served) else None, self.served)

    def parts(self) -> Parts:
        """Where the modules are that are read."""
        raise NotImplementedError

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """What enters the decoder for features of the tower."""
        raise NotImplementedError

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """`[kept, dim]` for every picture or video: never more of them in the tower at once than vLLM's own encoder
        budget has room for, of the tokens they have before any are dropped."""
        return tuple(kept for modality in MODALITIES for kept in self._embedded(modality, kwargs))

    def _embedded(self, modality: str, kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
        if (budgets := kwargs.get(budget_field(modality))) is None:
            return
        given = {key: value for key, value in kwargs.items() if not key.startswith(f"{KEY}_")}
        questions = kwargs.get(question_field(modality), [None] * len(budgets))
        asked = [
            question_of(for_request(self.served, {"keep": from_numbers(numbers)}), as_text(question))
            for numbers, question in zip(torch.as_tensor(budgets).tolist(), questions, strict=True)
        ]
        flat = self.flat(modality, given)
        items = [taken(given, [number], flat) for number in range(len(asked))]
        images = [self.layouts.of(modality, item) for item in items]
        for some in batches([len(image) for image in images], self.at_once):
            kept = self._run(modality, taken(given, some, flat), [images[n] for n in some], [asked[n] for n in some])
            yield from (self.told(modality, *each) for each in zip(kept, [items[n] for n in some], strict=True))

    def flat(self, modality: str, given: Mapping[str, Any]) -> Mapping[str, list[int]]:
        """How long the part of every item is in values that have the items one after the other."""
        return {}

    def _run(
        self, modality: str, given: Mapping[str, Any], alone: Sequence[Image], asked: Sequence[Strategy]
    ) -> list[Kept]:
        """One run of the tower."""
        images, grids = through(alone), self.layouts.grids(modality, given)
        with self.watch.run() as run:
            embeds = [own.flatten(0, -2) for own in super().embed_multimodal(**given)]  # type: ignore[misc]
        if [len(own) for own in embeds] != [len(image) for image in images]:
            raise InputError(
                f"the tower gave {[len(own) for own in embeds]} tokens for pictures that are laid out as "
                f"{[len(image) for image in images]}"
            )
        entering = [own[:, : self.width] for own in embeds]  # without what is added after later layers
        tap = run.over(images, self.layouts.patches(images), grids, entering)
        return reduce(asked, images, embeds, self.width, tap, self.project, 3 if self.family.mrope else 1)

    def told(self, modality: str, kept: Kept, item: Mapping[str, Any]) -> torch.Tensor:
        """What vLLM is given for one picture."""
        return kept.tokens
