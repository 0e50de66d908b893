"""The models of the plug-in, written against lmms-eval's own base class."""

import inspect
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

import seeless as sl
from seeless.errors import with_kind
from seeless.integrations.answering import Answerer, Effort
from seeless.integrations.batches import UnusablePrompts
from seeless.integrations.lmms_eval.arguments import Door, check_processing, read_arguments
from seeless.integrations.lmms_eval.documents import BadDocument, BadDocuments
from seeless.integrations.lmms_eval.measures import Measure, figures
from seeless.integrations.lmms_eval.options import cut, generate_options
from seeless.integrations.prompts import Prompt, prompt_of_messages, prompt_of_text
from seeless.named.checkpoints import load_model, resolve_name
from seeless.named.plugins import load_plugins
from seeless.pixels import whole_pictures
from seeless.strategy import Recipe

T = TypeVar("T")
MAX_FRAMES = 32
PADDING = "__padding_only__"


class SeelessLM(lmms):
    """`--model seeless`: any supported checkpoint with any strategy, simple interface.

    Args:
        batch_size: prompts of a batch.
        max_batch_size: not used; lmms-eval hands it over with batch_size=auto, which is refused.
        device: unless told, a GPU if there is one, to every process its own.
        arguments: see docs/lmms-eval.md.

    `measures` has what every answered request took, in data parallel runs of all processes once the run is over.

    Raises:
        SeelessError: an argument that is unknown or not possible, a checkpoint that cannot be loaded, a strategy that
            cannot work on it.
    """

    door: ClassVar[Door] = Door()

    def __init__(
        self,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **arguments: Any,
    ) -> None:
        plugins = str(arguments.get("plugin") or "")
        load_plugins([Path(file) for file in plugins.split(";") if file])
        chosen = read_arguments(arguments, self.door)
        accelerator = Accelerator()
        if device in (None, "cuda") and torch.cuda.is_available():
            device = f"cuda:{accelerator.local_process_index}"
        name = resolve_name(chosen.pretrained)
        loaded = load_model(name, device=device, processing=chosen.processing, **chosen.loading)
        check_processing(chosen, loaded.processor)
        self._start(loaded.model, loaded.processor, chosen.strategy, batch_size, name, images=chosen.images)
        self._owned = True
        self._max_frames, self._system = chosen.max_frames, self._resolve_system_prompt(chosen.system_prompt or "")

    @classmethod
    def around(
        cls,
        model: Any,
        processor: Any,
        strategy: sl.Strategy | Recipe | None,
        *,
        batch_size: int = 1,
        keep_first_token: bool = False,
        max_frames: int = MAX_FRAMES,
        answered: Callable[[int, int], None] = lambda done, known: None,
    ) -> "SeelessLM":
        """A model that is loaded already, for `lmms_eval.evaluator.simple_evaluate(model=...)`; it stays usable after.

        Args:
            strategy: None for the untouched model.
            keep_first_token: whether `measures` have the log-probabilities of every first token.
            max_frames: of a video file, evenly spread.
            answered: called with how many documents are answered, and how many are known of.
        """
        self = cls.__new__(cls)
        name = str(getattr(model.config, "_name_or_path", ""))
        self._start(model, processor, strategy, batch_size, name, keep_first_token=keep_first_token)
        self._max_frames, self._tell = max_frames, answered
        return self

    def _start(
        self,
        model: Any,
        processor: Any,
        strategy: sl.Strategy | Recipe | None,
        batch_size: int | str,
        name: str,
        **options: Any,
    ) -> None:
        lmms.__init__(self)
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise sl.InputError(f"batch_size={batch_size} is not possible; give a whole number from 1 on")
        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.batch_size, self.device = int(batch_size), model.device
        self.answerer = Answerer(model, processor, strategy, **options)
        self.measures: list[Measure] = []
        self._shown = f"{type(self).__name__}({name!r}, {strategy!r})"
        self._owned, self._max_frames, self._system = False, MAX_FRAMES, ""
        self._tell: Callable[[int, int], None] = lambda done, known: None
        self._done, self._known = 0, 0
        self._bad: list[BadDocument] = []
        self._seconds = 0.0

    def __repr__(self) -> str:
        """Also what lmms-eval's cache of responses knows a ready-made model by."""
        return self._shown

    # What lmms-eval calls.

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult | None]:
        """Written answers, in the order of the requests; None for a document that cannot be read."""
        results: dict[int, GenerationResult] = {}
        for places, prompts in self._batches(requests):
            options = self._options(requests[places[0]])
            ask = partial(self.answerer.answer, **generate_options(options))
            for place, answer in self._usable(requests, places, prompts, ask):
                text = cut(answer.text, options.get("until"))
                results[place] = self._measured(requests[place], text, answer.effort, None)
        return [results.get(place) for place in range(len(requests))]

    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult | None]:
        """Losses of given answers (lower is better, as lmms-eval 0.7.3 wants them), and whether each is the greedy one.

        Raises:
            InputError: lmms-eval's cache of responses is on, which cannot hold them.
        """
        if any(frame.filename.endswith("response_cache.py") for frame in inspect.stack(0)[1:3]):
            raise sl.InputError(
                "the response cache of lmms-eval 0.7.3 cannot hold likelihoods, which multiple-choice tasks ask for; "
                "run them without --use_cache"
            )
        results: dict[int, GenerationResult] = {}
        for places, prompts in self._batches(requests, whole=True):
            answers = [self._readable(requests[place], self._continuation) for place in places]
            pairs = [pair for pair in zip(places, prompts, answers, strict=True) if pair[2] is not None]
            questions = [(prompt, answer) for _, prompt, answer in pairs]
            ask = partial(self.answerer.rate, batch_size=self.batch_size)
            for place, rating in self._usable(requests, [place for place, _, _ in pairs], questions, ask):
                request = requests[place]
                text: Any = rating.loss, rating.greedy  # a bare tuple is turned into a string
                results[place] = self._measured(request, text, rating.effort, request.idx)
        return [results.get(place) for place in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refused: no strategy says what a second round should see of the first one's pictures."""
        raise sl.InputError("tasks of several rounds cannot be run: every round would need pictures of its own")

    def clean(self) -> None:
        """Called by lmms-eval on every process once all answers are there: collects figures and bad documents.

        Raises:
            BadDocuments: documents could not be read.
        """
        gathered: list[Any] = [(self.measures, self._bad, self._seconds)]
        if self.world_size > 1 and torch.distributed.is_initialized():
            gathered = [None] * self.world_size
            torch.distributed.all_gather_object(gathered, (self.measures, self._bad, self._seconds))
        self.measures = [measure for measures, _, _ in gathered for measure in measures]
        bad = [each for _, found, _ in gathered for each in found]
        seconds = sum(each for _, _, each in gathered)
        tokens = sum(measure.output_tokens for measure in self.measures)
        if self.rank == 0:
            log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, figures(self.measures))
        if self._owned:  # else there is nothing to give back, and collecting garbage twice takes a while
            del self.answerer
            super().clean()
        if bad:
            raise BadDocuments(bad)

    # Requests.

    def _batches(self, requests: Sequence[Instance], whole: bool = False) -> Iterator[tuple[list[int], list[Prompt]]]:
        """Places of requests that have their generation arguments in common, and their prompts.

        Long prompts come first, so that memory runs out at once if at all. Documents that cannot be read are left out,
        and so are requests that only pad the shards of a data parallel run.

        Args:
            whole: whether all requests about one prompt stay together, with one object for it.
        """
        groups: dict[str, dict[Any, list[int]]] = {}
        for place, request in enumerate(requests):
            if not (request.metadata or {}).get(PADDING):
                units = groups.setdefault(json.dumps(self._options(request), sort_keys=True, default=str), {})
                key = (request.task_name, request.doc_id, request.args[0]) if whole else place
                units.setdefault(key, []).append(place)
        self._known += sum(map(len, groups.values()))
        bar = tqdm(total=len(requests), disable=self.rank != 0, desc="Answering")
        for group in groups.values():
            longest_first = sorted(group.values(), key=lambda places: -len(requests[places[0]].args[0]))
            for start in range(0, len(longest_first), self.batch_size):
                chosen: list[tuple[int, Prompt]] = []
                for places in longest_first[start : start + self.batch_size]:
                    prompt = self._readable(requests[places[0]], self._written)
                    chosen += [(place, prompt) for place in places if prompt is not None]
                    bar.update(len(places))
                if chosen:
                    yield [place for place, _ in chosen], [prompt for _, prompt in chosen]
                self._done += len(longest_first[start : start + self.batch_size])
                self._tell(self._done, self._known)
        bar.close()

    def _readable(self, request: Instance, read: Callable[[Instance], T]) -> T | None:
        """What there is to read of a request; None, and a note, if its document does not let that be done."""
        try:
            with whole_pictures():
                return read(request)
        except sl.MissingExtra:  # no fault of the document
            raise
        except Exception as error:  # whatever a task's functions, Pillow and chat templates raise about a document
            self._note(request, with_kind(error))
            return None

    def _written(self, request: Instance) -> Prompt:
        """The prompt of a request, which the chat template does not refuse."""
        prompt = self._prompt(request)
        self.answerer.batches.text(prompt)
        return prompt

    def _usable(
        self, requests: Sequence[Instance], places: list[int], asked: list[Any], ask: Callable[[list[Any]], list[T]]
    ) -> Iterator[tuple[int, T]]:
        """Places and answers; documents that the processor refuses are noted and left out."""
        started = time.perf_counter()
        answers: list[T] = []
        while asked and not answers:
            try:
                answers = ask(asked)
            except UnusablePrompts as error:
                for number, reason in error.reasons.items():
                    self._note(requests[places[number]], reason)
                left = [number for number in range(len(asked)) if number not in error.reasons]
                places, asked = [places[number] for number in left], [asked[number] for number in left]
        self._seconds += time.perf_counter() - started
        return zip(places, answers, strict=True)

    def _note(self, request: Instance, reason: str) -> None:
        bad = BadDocument(str(request.task_name), int(request.doc_id), reason)
        logger.error(f"cannot be used: {bad}")
        self._bad.append(bad)

    def _doc(self, request: Instance) -> Any:
        doc_id, task, split = request.args[-3:]
        return self.task_dict[task][split][doc_id]

    def _options(self, request: Instance) -> dict[str, Any]:
        return request.args[1] if isinstance(request.args[1], dict) else {}

    def _prompt(self, request: Instance) -> Prompt:
        text, _, doc_to_visual = request.args[:3]
        visuals = doc_to_visual(self._doc(request)) if callable(doc_to_visual) else None
        return prompt_of_text(text, visuals or [], self._max_frames, self._system)

    def _continuation(self, request: Instance) -> str:
        answer = request.args[1]
        return str(answer(self._doc(request))) if callable(answer) else str(answer)

    def _measured(self, request: Instance, text: Any, effort: Effort, choice: int | None) -> GenerationResult:
        self.measures.append(
            Measure(**vars(effort), task=str(request.task_name), doc_id=int(request.doc_id), choice=choice)
        )
        return GenerationResult(text, TokenCounts(effort.input_tokens, effort.output_tokens))


class SeelessLMChat(SeelessLM):
    """`--model seeless`, chat interface: conversations as tasks write them."""

    is_simple = False

    def _options(self, request: Instance) -> dict[str, Any]:
        return request.args[2]

    def _prompt(self, request: Instance) -> Prompt:
        doc_to_messages: Callable = request.args[1]
        return prompt_of_messages(doc_to_messages(self._doc(request)), self._max_frames, self._system)
