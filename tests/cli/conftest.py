"""Run the command line in this process, in an empty folder, and leave no trace of it."""

from dataclasses import dataclass

import pytest
from transformers.utils import logging

from seeless import registry
from seeless.cli.main import main


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
    verbosity, strategies = logging.get_verbosity(), dict(registry._strategies)

    def call(*arguments) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(end.value.code or 0, captured.out, captured.err)

    yield call
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()
    registry._strategies.clear()
    registry._strategies.update(strategies)


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
