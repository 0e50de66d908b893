"""Flags on the command line: read, and written in errors."""

import seeless as sl
from seeless.named.knobs import Values, build_strategies


def read_flags(arguments: list[str]) -> Values:
    """Names and values of flags; None for a flag without a value.

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
    return flags


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
