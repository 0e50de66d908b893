"""What vLLM cannot serve."""

from typing import ClassVar

from seeless.errors import SeelessError


class NotServed(SeelessError, ValueError):
    """vLLM cannot serve this model, or not with this strategy or option."""

    exit_code: ClassVar[int] = 2
