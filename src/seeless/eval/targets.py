"""The models `seeless eval` knows by a short name, and what `--model` and `--pretrained` stand for."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from seeless import models
from seeless.errors import brief
from seeless.eval.errors import InvalidRequest
from seeless.named.checkpoints import READER, TINY
from seeless.named.errors import UnloadableModel

PLUGIN = "seeless"


@dataclass(frozen=True)
class Target:
    """A model to evaluate.

    Args:
        name: as it is asked for, and as it stands in folder names.
        pretrained: hub id or folder for `transformers`; "tiny" or "reader" for an embedded model.
        guest_id: the lmms-eval model id that runs PriorTR's methods with the defaults of its wrapper for this backbone;
            None where there is no such wrapper, so that id "seeless" with strategy `vtr:METHOD` does.
        original: PriorTR's default checkpoint.
        note: what is different from it; "" if nothing is.
    """

    name: str
    pretrained: str
    guest_id: str | None = None
    original: str = ""
    note: str = ""

    @property
    def embedded(self) -> bool:
        """Whether it is a model in this package."""
        return self.pretrained in (TINY, READER)

    @property
    def on_disk(self) -> bool:
        """Whether its config can be read without a network."""
        return self.embedded or os.path.exists(self.pretrained)


SHORT = {
    target.name: target
    for target in (
        Target(TINY, TINY, "llava_vtr"),
        Target(READER, READER, "llava_vtr"),
        Target("llava", "llava-hf/llava-1.5-7b-hf", "llava_vtr", "liuhaotian/llava-v1.5-7b", "the same, converted"),
        Target(
            "internvl",
            "OpenGVLab/InternVL3-8B-hf",
            "internvl_vtr",
            "OpenGVLab/InternVL2_5-8B",
            "InternVL2.5 has no release for transformers' own classes, so its successor runs: other numbers",
        ),
        Target("qwen2vl", "Qwen/Qwen2-VL-7B-Instruct", "qwen2_vl_vtr"),
        Target("qwen3vl", "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl_vtr", "Qwen/Qwen3-VL-8B-Instruct"),
        Target(
            "video-llava",
            "LanguageBind/Video-LLaVA-7B-hf",
            "video_llava_vtr",
            "LanguageBind/Video-LLaVA-7B",
            "the same, converted",
        ),
    )
}


def target(name: str, pretrained: str | None = None) -> Target:
    """What a name stands for: a short one, else a hub id ("owner/name") or a folder.

    Args:
        pretrained: another checkpoint for a short name.

    Raises:
        InvalidRequest: neither, or a second checkpoint for something that is one.

    >>> target("llava").pretrained, target("llava", "liuhaotian/llava-v1.5-13b").pretrained
    ('llava-hf/llava-1.5-7b-hf', 'llava-hf/llava-1.5-13b-hf')
    """
    if name in SHORT:
        short = SHORT[name]
        if pretrained is None:
            return short
        if short.embedded:
            raise InvalidRequest(f"--model {name} is an embedded model; give another checkpoint as --model")
        return Target(name, _checkpoint(pretrained), short.guest_id)
    if pretrained is not None:
        raise InvalidRequest(
            f"--pretrained replaces the checkpoint of a short name ({', '.join(SHORT)}), not {brief(name)}"
        )
    if "/" not in name and not os.path.exists(name):
        near = difflib.get_close_matches(name.lower(), SHORT, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}" if near else f"short names are {', '.join(SHORT)}"
        raise InvalidRequest(
            f"no model is called {brief(name)}; {hint}. A hub id (owner/name) or a folder will do, too"
        )
    return Target(Path(name).name, _checkpoint(name))


def _checkpoint(name: str) -> str:
    if "," in name or "=" in name:
        raise InvalidRequest(
            f"lmms-eval cannot take {brief(name)}: no comma and no '=' may be in the name of a checkpoint"
        )
    path = Path(name)
    if os.path.exists(path):
        return str(path.resolve())
    if name.startswith((".", "/", "~")):
        raise UnloadableModel(f"cannot load {brief(name)}: no such folder")
    return models.converted_name(name)
