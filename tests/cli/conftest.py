"""Run the command line in this process, in an empty folder, and leave no trace of it."""

from dataclasses import dataclass

import pytest
from transformers.utils import logging

from seeless import registry
from seeless.cli.main import main
from seeless.vtr import VTR_REGISTRY


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def seeless(tmp_path, monkeypatch, capsys):
    """`seeless("run", "--keep", 64)` -> code, stdout, stderr; the current directory is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    verbosity, strategies, guests = logging.get_verbosity(), dict(registry._strategies), dict(VTR_REGISTRY)

    def call(*arguments) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(end.value.code or 0, captured.out, captured.err)

    yield call
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    for names, before in ((registry._strategies, strategies), (VTR_REGISTRY, guests)):
        names.clear()
        names.update(before)


PLUGIN = '''
import seeless as sl


@sl.register("mymethod")
class MyMethod(sl.LayerStrategy):
    """Keep what the last token looks at and what is large."""

    weight: float = 0.1

    def score(self, ctx):
        return ctx.attention(queries="last").mean((1, 2)) + self.weight * ctx.visual.norm(dim=-1)
'''


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "my_method.py"
    file.write_text(PLUGIN)
    return file


GUEST = '''
from dataclasses import dataclass

from seeless.vtr import FastVStrategy, PriorTRStrategy, PruningStrategy, VTRConfig, register_strategy


@dataclass
class MyConfig(VTRConfig):
    """Mine.

    Args:
        my_temperature: the last token's attention is taken to the power of 1 / my_temperature.
    """

    my_temperature: float = 1.0
    loud: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.my_temperature <= 0:
            raise ValueError("my_temperature must be above 0")


@register_strategy("myguest")
class MyStrategy(PruningStrategy):
    """What the last token attends to.

    More about it.
    """

    config_class = MyConfig

    def compute_scores(self, attention, image_token_range, config, **ctx):
        img_start, img_end = image_token_range
        scores = attention[:, :, -1, img_start:img_end].mean(dim=1).squeeze(0)
        return -scores if config.loud else scores ** (1 / config.my_temperature)


@register_strategy("switch")
class RouterStrategy(PruningStrategy):
    def __init__(self):
        self.by_layer = {2: PriorTRStrategy(), 6: FastVStrategy()}

    def compute_scores(self, attention, image_token_range, config, **ctx):
        return self.by_layer[ctx["layer_idx"]].compute_scores(attention, image_token_range, config, **ctx)
'''


@pytest.fixture
def guest(tmp_path):
    """A plugin with the guests `myguest`, which has a configuration of its own, and `switch`."""
    file = tmp_path / "my_strategy.py"
    file.write_text(GUEST)
    return file
