"""What can go wrong with training data."""

from seeless.errors import SeelessError


class BadRecords(SeelessError, ValueError):
    """Records that cannot be trained on; the message names the first ones and the file that lists them all."""

    exit_code = 8
