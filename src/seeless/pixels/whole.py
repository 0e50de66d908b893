"""Pictures that break off are refused, whatever other libraries told Pillow."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_told = False


@contextmanager
def whole_pictures() -> Iterator[None]:
    """Inside, Pillow refuses pictures that break off, which lmms-eval has it fill up with grey.

    The switch is one for the whole process: it is put back when the last thread inside leaves.
    """
    global _inside, _told
    from PIL import ImageFile

    with _lock:
        if _inside == 0:
            _told = ImageFile.LOAD_TRUNCATED_IMAGES
        _inside += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _told
