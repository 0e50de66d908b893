"""Flags on the command line: read, and written in errors."""

import seeless as sl
from seeless.cli.console import notice
from seeless.cli.spellings import SPELLINGS
from seeless.named.knobs import Values, build_strategies

MAY_BE_EMPTY = ("ask", "question")


def read_flags(arguments: list[str], options: tuple[str, ...] = ()) -> Values:
    """Names and values of flags; None for a flag without a value.

    Names of the original methods' scripts become those of fields, with a notice.

    Args:
        options: fields of strategies that are options of the command, so that no flag can stand for them.

    Raises:
        BudgetError: a word that belongs to no flag, or a field twice, by its own name and by an original one.

    >>> read_flags(["--head-aggregation", "max", "--layer=8,16", "--no-newlines"])
    {'head_aggregation': 'max', 'layer': '8,16', 'no_newlines': None}
    """
    flags: Values = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise sl.BudgetError(
                f"{word!r} belongs to no flag; a picture is --image FILE, a strategy's field --field value"
            )
        name, equals, value = word[2:].partition("=")
        follows = bool(rest) and not rest[0].startswith("--")
        flags[name.replace("-", "_")] = value if equals else rest.pop(0) if follows else None
    for original in flags.keys() & SPELLINGS.keys():
        field = SPELLINGS[original]
        if field in options or field in flags:
            raise sl.BudgetError(f"--{original} is --{field} here; give --{field} alone")
        notice(f"--{original} is --{field} here")
        flags[field] = flags.pop(original)
    return flags


def refuse_empty(arguments: list[str]) -> None:
    """Refuse an option with nothing for a value, which a variable of the shell that is not set leaves behind.

    Raises:
        BudgetError: there is one, but for a question and for what `serve` passes on.

    >>> refuse_empty([]), refuse_empty(["run", "--ask", ""])
    (None, None)
    >>> refuse_empty(["run", "--model", ""])
    Traceback (most recent call last):
    seeless.errors.BudgetError: --model has an empty value; give one, or leave --model out
    """
    if "serve" in arguments[:1]:
        return
    for name, value in zip(arguments, [*arguments, None][1:], strict=True):
        option = name.removesuffix("=") if name.endswith("=") else name if value == "" else ""
        if option.startswith("--") and option.rpartition(".")[2].strip("-") not in MAY_BE_EMPTY:
            raise sl.BudgetError(f"{option} has an empty value; give one, or leave {option} out")


def as_flag(name: str, value: str) -> str:
    """How a flag is written: `--keep-tokens 64`.

    >>> as_flag("keep_tokens", "64"), as_flag("random.seed", "")
    ('--keep-tokens 64', '--random.seed')
    """
    return f"--{name.replace('_', '-')} {value}".rstrip()


def refuse_strangers(flags: Values, names: list[str]) -> None:
    """Refuse a flag that is a field of none of several strategies, each of which takes those that are its own.

    Raises:
        BudgetError: there is one; in the words of the first strategy.
    """
    from seeless.eval.nominal import belongs
    from seeless.named.strategies import choose

    for flag in flags:
        if not any(belongs(flag, choose(name)) for name in names):
            build_strategies(names[:1], {flag: flags[flag]}, as_flag)
