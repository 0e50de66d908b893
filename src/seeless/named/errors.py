"""What can go wrong with a name, and errors of others in one line."""

from seeless.errors import SeelessError


class UnloadableModel(SeelessError):
    """A model that cannot be found or loaded."""

    exit_code = 6


class UnusablePlugin(SeelessError):
    """A plugin file that cannot be imported."""

    exit_code = 7


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of foreign errors with several lines, the first.

    >>> one_line(OSError("not found" + chr(10) + "see https://example.org"))
    'not found'
    """
    text = str(error).strip()
    if isinstance(error, SeelessError):
        return " ".join(text.split())
    if isinstance(error, KeyError) or not text:
        return f"{type(error).__name__} {text}".strip()
    return text.splitlines()[0].strip()
