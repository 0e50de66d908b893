"""The rules of advice: what people want to do, what a method must be for it, and why.

`seeless advise` and docs/choose.md are made of this.
"""

from dataclasses import dataclass
from fractions import Fraction

# Another question about the same picture keeps other tokens.
READ_THE_QUESTION = (
    *("anchorprune", "cdpruner", "clse", "dart", "eadp", "fastv", "flashvid", "holitom", "mmtok", "mustdrop"),
    *("priortr", "priortr_2f", "prunevid", "pyramiddrop", "sparsevlm", "tops", "vscan"),
)
MADE_FOR_VIDEOS = ("dycoke", "evs", "fastvid", "flashvid", "holitom", "prunevid", "vidcom2")
RANK_BY_ALL_ANSWERS = ("pyramiddrop",)  # in training, as their authors do

# Of 576 tokens 432, 288, 192, 128, 64 and 32, the budgets that most sources print.
BUDGETS = tuple(Fraction(text) for text in ("3/4", "1/2", "1/3", "2/9", "1/9", "1/18"))


@dataclass(frozen=True)
class Need:
    """What a method must be.

    Args:
        fact: of `seeless.advice.suiting.Facts`.
        reason: why, a sentence.
    """

    fact: str
    reason: str


@dataclass(frozen=True)
class Use:
    """What somebody wants to do.

    Args:
        name: in JSON, and on the left of tables.
        title: for people.
        needs: what a method must be for it, beside running on the model; no needs: any will do.
        budget: share of the visual tokens to begin with.
        why: of the budget, and of what else is said.
        benchmarks: by which published figures rank methods; all there are if none is named.
        first: methods that go before those ranked higher, for what `why` says.
        served: whether it ends in a command, and not in a line of Python.
    """

    name: str
    title: str
    needs: tuple[Need, ...]
    budget: Fraction
    why: str
    benchmarks: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    served: bool = False


BEGIN = Fraction(2, 9)
PICTURES = Need("for_pictures", "Methods made for videos compare frames, and a picture is one.")
COMMON = "2/9 of the tokens, 128 of 576, is the budget that most sources print; go down while answers stay."
USES = (
    Use(
        "conversation",
        "several questions about one picture: a conversation, an agent, a cached prefix",
        (
            Need("any_question", "What one question does not need the next may."),
            Need("before_decoder", "Cut before the decoder, all its layers and its cache are short."),
            PICTURES,
        ),
        BEGIN,
        COMMON,
    ),
    Use("question", "one question about a picture", (PICTURES,), BEGIN, COMMON),
    Use(
        "small print",
        "read small print, count, point at things",
        (PICTURES,),
        Fraction(1, 2),
        "What is dropped cannot be read, so keep half or more; ranked by benchmarks about text in pictures.",
        benchmarks=("TextVQA", "OCRBench"),
    ),
    Use(
        "video",
        "videos",
        (Need("for_videos", "Frames repeat each other, and methods made for videos know it."),),
        BEGIN,
        COMMON,
    ),
    Use(
        "training",
        "train with fewer tokens",
        (
            Need(
                "fits_all_answers",
                "A record may ask several questions about its picture, so the choice must suit them all: it reads none "
                "of them, or looks before every answer.",
            ),
            PICTURES,
        ),
        BEGIN,
        f"PyramidDrop was made for training: its authors' rule ranks by the tokens right before all answers. {COMMON}",
        first=RANK_BY_ALL_ANSWERS,
    ),
    Use(
        "serving",
        "serve with vLLM",
        (
            Need(
                "served",
                "vLLM takes methods that act before the decoder, on each picture alone, and keep a number of tokens "
                "that is known before the picture is.",
            ),
            PICTURES,
        ),
        BEGIN,
        COMMON,
        served=True,
    ),
)


def use_named(name: str) -> Use:
    """The use of a name.

    >>> use_named("small print").budget
    Fraction(1, 2)
    """
    return next(use for use in USES if use.name == name)
