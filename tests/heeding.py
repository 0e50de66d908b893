"""Processes that heed what asks them to end, whatever started the tests: `&` and `nohup` have signals ignored."""

import signal


def heed():
    """What a started process does first (`preexec_fn`)."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
