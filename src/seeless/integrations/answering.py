"""Answers of a model that looks at fewer tokens, and what each of them cost."""

import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

import seeless as sl
from seeless import models
from seeless.errors import brief
from seeless.integrations.batches import Batches, UnusablePrompts
from seeless.integrations.prompts import Prompt
from seeless.named.errors import naming_strategies
from seeless.strategy import Recipe
from seeless.vtr import VTRConfig

MAX_NEW_TOKENS = 1024
GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What the answer to one prompt took.

    Args:
        visual_before: visual tokens of its pictures.
        visual_average: visual tokens per decoder layer.
        input_tokens: text and visual tokens per decoder layer, rounded.
        flops, flops_untouched: of its prefill, with reduction and without (`seeless.flops`), as if it were alone.
        prefill_seconds: until the first token of its batch was there, divided by the prompts of the batch.
        output_tokens: tokens of the answer, the end token included.
        first_token: `[vocab]` float32 on the CPU, log-probabilities of the first token, if they were asked for.
    """

    visual_before: int
    visual_average: float
    input_tokens: int
    flops: float
    flops_untouched: float
    prefill_seconds: float
    output_tokens: int
    first_token: torch.Tensor | None = None


@dataclass(frozen=True)
class Answer:
    """The text of an answer, and what it took."""

    text: str
    effort: Effort


@dataclass(frozen=True)
class Rating:
    """How likely a given answer was.

    Args:
        loss: minus the sum of the log-probabilities of its tokens.
        greedy: whether each of its tokens was the most likely one.
        effort: of the prompt's prefill, which ratings of other answers to it may share.
    """

    loss: float
    greedy: bool
    effort: Effort


class Answerer:
    """A model, its processor and a strategy.

    Args:
        strategy: None leaves the model as it is; visual tokens and FLOPs are counted all the same.
        images: what the image processor is told about every picture.
        keep_first_token: whether to keep the log-probabilities of every first token.

    Raises:
        UnsupportedModel, BudgetError: the strategy cannot work on this model.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        strategy: sl.Strategy | Recipe | None,
        *,
        images: dict[str, Any] | None = None,
        keep_first_token: bool = False,
    ) -> None:
        self.model, self.processor, self.strategy = model, processor, strategy
        self.keep_first_token = keep_first_token
        self.batches = Batches(model, processor, images)
        if strategy is not None:
            sl.apply(model, strategy).remove()

    def answer(self, prompts: Sequence[Prompt], **options: Any) -> list[Answer]:
        """Answers to the prompts, as one batch.

        Args:
            options: of `generate` (`max_new_tokens=16`, `num_beams=3`); greedy unless told.

        Raises:
            UnusablePrompts: some prompts are refused.
        """
        options = {"max_new_tokens": MAX_NEW_TOKENS, **GREEDY, **options}
        run = self._generate(prompts, options, self.keep_first_token)
        texts = self.processor.batch_decode(run.answers, skip_special_tokens=True)
        efforts = run.efforts([self._length(ids) for ids in run.answers], self.keep_first_token)
        return [Answer(text, effort) for text, effort in zip(texts, efforts, strict=True)]

    def rate(self, questions: Sequence[tuple[Prompt, str]], batch_size: int) -> list[Rating]:
        """How likely the model finds given answers.

        What is kept depends on the prompt alone: the prompt runs as for `answer`, then the tokens of the answer are fed
        one by one. Answers to one prompt (the same object) that share all tokens but the last share a row.

        Args:
            batch_size: rows of a batch.

        Raises:
            UnusablePrompts: some prompts are refused, or answers to them have no token.
        """
        answers = [self._tokens(prompt, text) for prompt, text in questions]
        if mute := [number for number, ids in enumerate(answers) if not ids]:
            raise UnusablePrompts({n: f"the answer {brief(questions[n][1])} has no token" for n in mute})
        rows: dict[tuple, list[int]] = {}
        for number, ((prompt, _), ids) in enumerate(zip(questions, answers, strict=True)):
            rows.setdefault((id(prompt), *ids[:-1]), []).append(number)
        shared, ratings = list(rows.values()), {}
        for start in range(0, len(shared), batch_size):
            batch = shared[start : start + batch_size]
            fed = [answers[numbers[0]] for numbers in batch]
            steps = max(map(len, fed))
            options = {"max_new_tokens": steps, **GREEDY, "logits_processor": [_Force(fed, self._end)]}
            try:
                run = self._generate([questions[numbers[0]][0] for numbers in batch], options, True)
            except UnusablePrompts as error:  # of a row: of all questions that share it
                reasons = {number: reason for row, reason in error.reasons.items() for number in batch[row]}
                raise UnusablePrompts(reasons) from error
            efforts = run.efforts([0] * len(batch), self.keep_first_token)
            for row, (numbers, effort) in enumerate(zip(batch, efforts, strict=True)):
                logs = torch.stack([logits[row].float().log_softmax(-1) for logits in run.logits[: len(fed[row])]])
                best = logs.argmax(-1).tolist()
                for number in numbers:
                    chosen = logs.gather(1, torch.tensor(answers[number], device=logs.device)[:, None])
                    ratings[number] = Rating(-float(chosen.sum()), best == answers[number], effort)
        return [ratings[number] for number in range(len(questions))]

    @property
    def _end(self) -> int:
        return self.processor.tokenizer.pad_token_id

    def _tokens(self, prompt: Prompt, answer: str) -> list[int]:
        """The answer's tokens as they follow the prompt's; after white space, without white space of its own."""
        tokenizer, text = self.processor.tokenizer, self.batches.text(prompt)
        answer = answer.lstrip() if text[-1:].isspace() else answer
        special = self.batches.adds_special(text)
        before = tokenizer(text, add_special_tokens=special)["input_ids"]
        whole = tokenizer(text + answer, add_special_tokens=special)["input_ids"]
        if whole[: len(before)] != before:  # a token across the seam
            whole = [*before, *tokenizer(answer, add_special_tokens=False)["input_ids"]]
        return whole[len(before) :]

    def _length(self, ids: torch.Tensor) -> int:
        """Tokens up to the end token, that included."""
        ends = self.model.generation_config.eos_token_id
        ended = torch.isin(ids, torch.tensor(ends, device=ids.device)) if ends is not None else ids != ids
        return int(ended.nonzero()[0]) + 1 if bool(ended.any()) else len(ids)

    @contextmanager
    def _applied(self) -> Any:
        strategy = VTRConfig(enabled=False) if self.strategy is None else self.strategy
        with naming_strategies(), sl.apply(self.model, strategy) as handle:
            yield handle

    @torch.no_grad()
    def _generate(self, prompts: Sequence[Prompt], options: dict[str, Any], keep_logits: bool) -> "_Run":
        from transformers import StoppingCriteriaList

        inputs = self.batches(prompts)
        clock = _Clock()
        given = {**inputs, **options, "pad_token_id": self._end, "stopping_criteria": StoppingCriteriaList([clock])}
        if keep_logits:
            given |= {"return_dict_in_generate": True, "output_logits": True}
        with self._applied() as handle:
            clock.start(inputs["input_ids"])
            made = self.model.generate(**given)
            report = handle.reports[0] if handle.reports else None
        ids, logits = (made.sequences, made.logits) if keep_logits else (made, ())
        length = inputs["input_ids"].shape[1]
        text = inputs["attention_mask"].sum(1).tolist()
        return _Run(self.model, report, text, clock.prefill, ids[:, length:], logits)


@dataclass(frozen=True)
class _Run:
    """One call of `generate`: the report of its prefill, tokens of the prompts, seconds, answers `[rows, tokens]`, and
    per step `[rows or beams, vocab]` logits."""

    model: Any
    report: sl.Report | None
    tokens: list[int]
    prefill: float
    answers: torch.Tensor
    logits: Sequence[torch.Tensor]

    def efforts(self, output_tokens: list[int], first_token: bool) -> list[Effort]:
        rows = len(self.tokens)
        efforts = []
        for row, (tokens, written) in enumerate(zip(self.tokens, output_tokens, strict=True)):
            before, average = 0, 0.0
            untouched = flops = models.text_flops(self.model, tokens) if self.report is None else 0
            if self.report is not None:
                place = row * (len(self.report.n_before) // rows)  # beams repeat a row
                before = self.report.n_before[place]
                average = sum(counts[place] for counts in self.report.visual) / len(self.report.visual)
                untouched, flops = self.report.row_flops[place]
            first = None
            if first_token:
                beams = len(self.logits[0]) // rows
                first = self.logits[0][row * beams].float().log_softmax(-1).cpu()
            efforts.append(
                Effort(
                    visual_before=before,
                    visual_average=average,
                    input_tokens=round(tokens - before + average),
                    flops=float(flops),
                    flops_untouched=float(untouched),
                    prefill_seconds=self.prefill / rows,
                    output_tokens=written,
                    first_token=first,
                )
            )
        return efforts


class _Clock:
    """Notes when the first token is there."""

    prefill = 0.0

    def _now(self, ids: torch.Tensor) -> float:
        if ids.is_cuda:
            torch.cuda.synchronize(ids.device)
        return time.perf_counter()

    def start(self, ids: torch.Tensor) -> None:
        self.started = self._now(ids)

    def __call__(self, ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        if not self.prefill:
            self.prefill = self._now(ids) - self.started
        return torch.zeros(len(ids), dtype=torch.bool, device=ids.device)


class _Force:
    """Makes `generate` write given tokens, then `end`."""

    def __init__(self, answers: list[list[int]], end: int) -> None:
        self.answers, self.end, self.step = answers, end, 0

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step, self.step = self.step, self.step + 1
        forced = [answer[step] if step < len(answer) else self.end for answer in self.answers]
        only = torch.full_like(scores, -torch.inf)
        return only.scatter(1, torch.tensor(forced, device=scores.device)[:, None], 0.0)
