"""Loyalty: how far a reduced model gives the untouched model's own answers, right or wrong.

EffiVLM-Bench (arXiv 2506.00479) argues for it beside accuracy: a method may lose answers that were right and win others
by luck, and accuracy alone does not tell.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seeless.eval.intervals import Score, score
from seeless.jsonl import decode
from seeless.outputs import writing


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said to every question.

    Args:
        words: by "task/number of the record": the answer, or the number of the option chosen.
        first: float32 log-probabilities `[vocabulary]` of the first token of the answer, by the same keys; records
            without are left out.
    """

    words: dict[str, str]
    first: dict[str, torch.Tensor]


def agreement(answers: Answers, reference: Answers) -> Score | None:
    """Share of the same answers (exact match), over the records that both answered; None if there is none.

    >>> untouched = Answers({"t/0": "red", "t/1": "4"}, {})
    >>> agreement(Answers({"t/0": "red", "t/1": "5"}, {}), untouched).value
    0.5
    """
    both = [key for key in reference.words if key in answers.words]
    return score([float(answers.words[key] == reference.words[key]) for key in both]) if both else None


def divergence(answers: Answers, reference: Answers) -> tuple[float, int] | None:
    """Mean KL(untouched || reduced) of the first answer token, in nats, and over how many records; None if over none.

    KL(p || q) = sum over the vocabulary of p (log p - log q); a token the untouched model rules out adds nothing.
    """
    both = [key for key in reference.first if key in answers.first]
    if not both:
        return None
    sums = [_kl(reference.first[key], answers.first[key]) for key in both]
    return sum(sums) / len(sums), len(sums)


def _kl(log_p: torch.Tensor, log_q: torch.Tensor) -> float:
    log_p, log_q = log_p.double(), log_q.double()
    possible = log_p > -torch.inf
    terms = log_p[possible].exp() * (log_p[possible] - log_q[possible])
    return max(0.0, terms.sum().item())  # rounding may leave a little less than nothing


def save_answers(answers: Answers, file: Path, identity: Mapping[str, Any]) -> None:
    """Keep answers, and what they are answers of; a file that is there is replaced at once or not at all.

    Raises:
        UnwritableFile: the disk is full, say.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    partial = file.with_name(file.name + ".partial")
    about = {"identity": json.dumps(identity, sort_keys=True), "words": json.dumps(answers.words)}
    with writing(file):
        try:
            save_file({key: value.contiguous() for key, value in answers.first.items()}, partial, about)
            os.replace(partial, file)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        finally:
            partial.unlink(missing_ok=True)


def load_answers(file: Path, identity: Mapping[str, Any]) -> Answers | str:
    """Answers kept by `save_answers`, or why they cannot serve: not there, unreadable, or of something else."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        return f"{file} is not there"
    try:
        with safe_open(file, "pt") as kept:
            about = kept.metadata()
            words, found = dict(decode(about["words"])), dict(decode(about["identity"]))
            answers = Answers(words, {key: kept.get_tensor(key) for key in kept.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{file} cannot be read: {error}"
    wanted = json.loads(json.dumps(identity))
    if other := [name for name in wanted if found.get(name) != wanted[name]]:
        differences = ", ".join(f"{name} {found.get(name)!r}, now {wanted[name]!r}" for name in other)
        return f"{file} belongs to another run: {differences}"
    return answers
