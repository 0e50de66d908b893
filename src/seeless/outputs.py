"""Files to write to: found unusable before any work is done, held by one process at a time, replaced whole."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seeless.errors import SeelessError, brief, system_reason

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # nothing more can be written
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EBADF)  # of network file systems


class UnwritableFile(SeelessError):
    """A file or folder that cannot be written to; the message has the system's reason."""


class FileInUse(SeelessError):
    """A file or folder that another process writes to."""


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Inside, an error of the system, or a name that no file can have, becomes `UnwritableFile` about `file`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UnwritableFile(f"cannot write {brief(file)}: {system_reason(error)}") from error


@contextmanager
def claimed(file: Path) -> Iterator[None]:
    """Hold a file for this process: folders are made, the file is opened, other processes are refused until the end.

    The system lets go of it when the process ends, however that happens. Where it cannot hold files (on Windows, on
    some network drives), the file is only tried out.

    Raises:
        UnwritableFile: it cannot be written to, or is no regular file.
        FileInUse: another process holds it.
    """
    make_folder(file.parent)
    with writing(file):
        new = not os.path.exists(file)
        if not new and not os.path.isfile(file):
            raise UnwritableFile(f"cannot write {brief(file)}: it is no file")
        out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        _lock(out, file)
        try:
            yield
        finally:
            if new and os.path.isfile(file) and os.path.getsize(file) == 0:
                os.unlink(file)
    finally:
        os.close(out)


@contextmanager
def claimed_folder(folder: Path) -> Iterator[None]:
    """Hold a folder that this process writes several files to, which is made; as `claimed` holds a file.

    Raises:
        UnwritableFile: no file can be written in it.
        FileInUse: another process holds it.
    """
    make_folder(folder)
    with writing(folder):
        out = os.open(folder, os.O_RDONLY)
    try:
        _lock(out, folder)
        yield
    finally:
        os.close(out)


def make_folder(folder: Path) -> None:
    """Make a folder unless it is there, and raise `UnwritableFile` unless files can be written in it."""
    with writing(folder):
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise UnwritableFile(f"cannot write to {brief(folder)}: it is no folder")
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_file(file: Path) -> None:
    """Raise what `claimed` raises, and leave nothing behind but folders."""
    with claimed(file):
        pass


def check_folder(folder: Path) -> None:
    """Raise what `claimed_folder` raises."""
    with claimed_folder(folder):
        pass


def replace_file(file: Path, content: bytes) -> None:
    """Give a file new content: all of it, or, if this raises, the old one.

    Raises:
        UnwritableFile: it cannot be written.
    """
    partial = file.with_name(f".{file.name}.partial")
    with writing(file):
        try:
            with partial.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, file)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def _lock(out: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # on Windows
        return
    with writing(path):
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.exists(path) and os.path.samestat(os.fstat(out), os.stat(path))
        except BlockingIOError:
            ours = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return
    if not ours:
        raise FileInUse(f"another process writes to {brief(path)}; wait until it is done, or choose another output")
