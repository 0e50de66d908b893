"""What can go wrong with a picture or a video."""

from seeless.errors import InputError


class UnreadableImage(InputError):
    """A picture that is missing, cannot be fetched or cannot be read; the message names it and says why."""

    exit_code = 5


class UnreadableVideo(InputError):
    """A video that is missing, damaged or cannot be read; the message names it and says why."""

    exit_code = 5
