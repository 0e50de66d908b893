"""Generation arguments of tasks as `generate` of transformers takes them."""

from collections.abc import Mapping
from typing import Any

from loguru import logger

from seeless.integrations.answering import GREEDY

PASSED_ON = (
    "max_new_tokens",
    "min_new_tokens",
    "num_beams",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "length_penalty",
    "early_stopping",
)
SAMPLING = ("temperature", "top_p", "top_k")
RENAMED = {"max_gen_toks": "max_new_tokens"}
HERE = ("until", "do_sample", "image_aspect_ratio")  # aspect ratios are the image processor's own business
_said: set[str] = set()


def generate_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `generate` is called with; arguments it has no use for are left out and named once in the log.

    Greedy, unless the temperature is above 0 and `do_sample` not false, or `do_sample` is true without a temperature.

    >>> generate_options({"max_new_tokens": 8, "temperature": 0, "until": ["."], "num_beams": 3})["num_beams"]
    3
    >>> generate_options({"temperature": 0.7, "top_p": 0.9})
    {'do_sample': True, 'temperature': 0.7, 'top_p': 0.9}
    """
    named = {RENAMED.get(name, name): value for name, value in given.items()}
    for name in sorted(set(named) - {*PASSED_ON, *SAMPLING, *HERE} - _said):
        logger.warning(f"the generation argument {name}={named[name]!r} of a task is unknown and not used")
        _said.add(name)
    options = {name: named[name] for name in PASSED_ON if named.get(name) is not None}
    sample, temperature = named.get("do_sample"), named.get("temperature")
    if sample if temperature is None else temperature > 0 and sample is not False:
        return options | {"do_sample": True} | {name: named[name] for name in SAMPLING if named.get(name) is not None}
    return options | GREEDY


def cut(text: str, until: str | list[str] | None) -> str:
    """The text before the first of the strings it is to stop at, without white space around it.

    >>> cut(" red. Or blue", ["\\n", "."])
    'red'
    """
    stops = [until] if isinstance(until, str) else until or []
    for stop in stops:
        if stop:
            text = text.split(stop)[0]
    return text.strip()
