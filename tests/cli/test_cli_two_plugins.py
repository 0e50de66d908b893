"""Several plug-ins: files of one name are not each other, and no name is taken over in silence."""

import pytest

NATIVE = '''
import seeless as sl


@sl.register("{name}")
class Mine(sl.LayerStrategy):
    """Keep the {which} ones."""

    def score(self, ctx):
        return {sign}ctx.index.float()
'''

GUEST = '''
from seeless.vtr import PruningStrategy, register_strategy


@register_strategy("{name}")
class Mine(PruningStrategy):
    """Keep the {which} ones."""

    def compute_scores(self, attention, image_token_range, config, **ctx):
        start, end = image_token_range
        return {sign}attention[0, 0, -1, start:end]
'''


def write(folder, text, name="mine", which="last", sign=""):
    folder.mkdir(exist_ok=True)
    (folder / "my_method.py").write_text(text.format(name=name, which=which, sign=sign))
    return folder / "my_method.py"


@pytest.mark.parametrize("text", [NATIVE, GUEST], ids=["native", "guest"])
def test_one_name_for_two_methods_is_refused(seeless, tmp_path, text):
    one, two = write(tmp_path / "a", text), write(tmp_path / "b", text, which="first", sign="-")
    outcome = seeless("info", "mine", "--plugin", one, "--plugin", two)
    assert outcome.code == 7 and outcome.out == "" and outcome.err.count("\n") == 1
    assert str(one) in outcome.err and str(two) in outcome.err and "'mine'" in outcome.err


@pytest.mark.parametrize("text", [NATIVE, GUEST], ids=["native", "guest"])
def test_two_files_of_one_name_with_methods_of_their_own(seeless, tmp_path, text):
    one, two = write(tmp_path / "a", text, "one"), write(tmp_path / "b", text, "two", "first", "-")
    for name, which in (("one", "last"), ("two", "first")):
        outcome = seeless("info", name, "--plugin", one, "--plugin", two)
        assert outcome.code == 0 and f"Keep the {which} ones." in outcome.out


@pytest.mark.parametrize("text", [NATIVE, GUEST], ids=["native", "guest"])
def test_one_file_twice_is_one_plugin(seeless, tmp_path, text):
    file = write(tmp_path / "a", text)
    (tmp_path / "link.py").symlink_to(file)
    assert seeless("info", "mine", "--plugin", file, "--plugin", tmp_path / "link.py").code == 0
    file.write_text(text.format(name="mine", which="new", sign=""))  # and may be changed between two commands
    assert "Keep the new ones." in seeless("info", "mine", "--plugin", file).out


def test_a_plugin_with_an_endless_name(seeless):
    outcome = seeless("list", "--plugin", "x" * 28_000)
    assert outcome.code == 7 and "does not exist" in outcome.err and len(outcome.err) < 1000
