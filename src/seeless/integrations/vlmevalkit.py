"""A model with fewer visual tokens for VLMEvalKit, and a launcher for its `run.py`.

VLMEvalKit has no plug-ins: what it can run stands in its dictionary `vlmeval.config.supported_VLM`. The launcher puts
an entry there and runs `run.py` in the same process:

    python -m seeless.integrations.vlmevalkit --run VLMEvalKit/run.py \\
        --model-args pretrained=llava-hf/llava-1.5-7b-hf,strategy=fastv,keep=0.25 --data MMBench_DEV_EN

VLMEvalKit itself is installed from its repository; importing this module does not import it.
"""

import argparse
import re
import runpy
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import seeless as sl
from seeless.errors import one_line
from seeless.integrations.lmms_eval.arguments import Door, read_arguments
from seeless.named.checkpoints import load_model, resolve_name
from seeless.named.plugins import load_plugins

NAME = "seeless"
INSTALL = "VLMEvalKit is not installed here: git clone it, then pip install -e VLMEvalKit"
COMMA = re.compile(r",(?![^\[]*\])")  # not within brackets


def model_class() -> type:
    """The class of the model, made from VLMEvalKit's own base class.

    Its arguments are those of `--model_args` of lmms-eval's model `seeless` (docs/lmms-eval.md), and `max_new_tokens`.

    Raises:
        MissingExtra: VLMEvalKit is not installed.
    """
    try:
        from vlmeval.vlm.base import BaseModel
    except ImportError as error:
        raise sl.MissingExtra(f"{INSTALL} ({error})") from error
    from seeless.integrations.answering import MAX_NEW_TOKENS, Answerer
    from seeless.integrations.prompts import prompt_of_messages

    class SeelessVLM(BaseModel):
        """Any supported checkpoint with any strategy; one question at a time, greedy."""

        INSTALL_REQ = False
        INTERLEAVE = True

        def __init__(self, plugin: str = "", max_new_tokens: int = MAX_NEW_TOKENS, **arguments: Any) -> None:
            super().__init__()
            load_plugins([Path(file) for file in plugin.split(";") if file])
            self.chosen = chosen = read_arguments(arguments, Door())
            name = resolve_name(chosen.pretrained)
            loaded = load_model(name, processing=chosen.processing, **chosen.loading)
            self.answerer = Answerer(loaded.model, loaded.processor, chosen.strategy, images=chosen.images)
            self.max_new_tokens = int(max_new_tokens)

        def generate_inner(self, message: Sequence[dict[str, str]], dataset: str | None = None) -> str:
            """The answer to a message of `{"type": "text" | "image" | "video", "value": text or path}`."""
            parts = [
                {"type": "text", "text": part["value"]}
                if part["type"] == "text"
                else {"type": part["type"], "url": part["value"]}
                for part in message
            ]
            turn = {"role": "user", "content": parts}
            prompt = prompt_of_messages([turn], self.chosen.max_frames, self.chosen.system_prompt)
            [answer] = self.answerer.answer([prompt], max_new_tokens=self.max_new_tokens)
            return answer.text.strip()

    return SeelessVLM


def register(name: str = NAME, **arguments: Any) -> None:
    """Make VLMEvalKit know a model: under `name` in `supported_VLM`, and its class in `vlmeval.vlm` for JSON configs.

    Raises:
        MissingExtra: VLMEvalKit is not installed.
    """
    cls = model_class()
    import vlmeval.config
    import vlmeval.vlm

    vlmeval.config.supported_VLM[name] = partial(cls, **arguments)
    setattr(vlmeval.vlm, cls.__name__, cls)


def parse_arguments(text: str) -> dict[str, str]:
    """Arguments in one line, as lmms-eval has them.

    Raises:
        InputError: a part without '='.

    >>> parse_arguments("pretrained=tiny,layer=[2,4],keep=[0.5;0.25]")
    {'pretrained': 'tiny', 'layer': '[2,4]', 'keep': '[0.5;0.25]'}
    """
    pairs = [part.partition("=") for part in COMMA.split(text) if part]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise sl.InputError(f"{wrong[0]!r} in --model-args is no NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in pairs}


def main(arguments: list[str] | None = None) -> None:
    """Register the model and run VLMEvalKit's `run.py` with all other arguments."""
    parser = argparse.ArgumentParser(prog="python -m seeless.integrations.vlmevalkit", allow_abbrev=False)
    parser.add_argument("--run", type=Path, required=True, metavar="FILE", help="VLMEvalKit's run.py")
    parser.add_argument("--name", default=NAME, help="what the model is called in VLMEvalKit's results")
    parser.add_argument("--model-args", default="pretrained=tiny", metavar="A=B,C=D", help="see docs/lmms-eval.md")
    known, rest = parser.parse_known_args(arguments)
    if not known.run.is_file():
        parser.error(f"--run {known.run}: there is no such file; it is run.py in a clone of VLMEvalKit")
    if "--model" in rest:
        parser.error("--model is set to what --model-args describes; --name names it")
    sys.path.insert(0, str(known.run.resolve().parent))  # where a clone has its package
    try:
        register(known.name, **parse_arguments(known.model_args))
    except sl.SeelessError as error:
        sys.exit(f"error: {one_line(error)}")
    sys.argv = [str(known.run), "--model", known.name, *rest]
    runpy.run_path(str(known.run), run_name="__main__")


if __name__ == "__main__":
    main()
