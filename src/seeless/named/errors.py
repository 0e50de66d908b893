"""What can go wrong with a name, and errors of others in one line."""

import seeless as sl
from seeless.errors import shortened

LONGEST = 4000  # of our own messages, which may list several things


class UnloadableModel(sl.SeelessError):
    """A model that cannot be found or loaded."""


class UnusablePlugin(sl.SeelessError):
    """A plugin file that cannot be imported."""


def one_line(error: BaseException) -> str:
    """The message of an error in one line; of foreign errors the first line, without the middle of a long one.

    >>> one_line(OSError("not found" + chr(10) + "see https://example.org"))
    'not found'
    """
    text = str(error).strip()
    if isinstance(error, sl.SeelessError):
        return shortened(" ".join(text.split()), LONGEST)
    if isinstance(error, KeyError) or not text:
        text = f"{type(error).__name__} {text}".strip()
    return shortened(text.splitlines()[0].strip())
