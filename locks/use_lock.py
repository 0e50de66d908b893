"""Make pip in an environment take exactly what the lock of the running Python says, in every `pip install` there.

`python locks/use_lock.py .venv` writes `.venv/pip.conf`; the folder need not exist yet. `... build/page demo-` takes
the locks whose names begin so.
"""

import sys
from pathlib import Path

LOCKS = Path(__file__).resolve().parent


def lock_of(version, kind=""):
    """The lock for a Python `(major, minor)`; without one, exits with the versions that have one."""
    lock = LOCKS / f"{kind}python{version[0]}.{version[1]}.txt"
    if not lock.is_file():
        known = [f"3.{minor}" for minor in range(99) if (LOCKS / f"python3.{minor}.txt").is_file()]
        sys.exit(
            f"Python {version[0]}.{version[1]} has no lock, {', '.join(known)} have. Name one of these, as in: "
            f"make clean; make demo PYTHON=python{known[-1]}"
        )
    return lock


def write(environment, lock):
    """A constraint by address, since pip splits paths at blanks; newer pips constrain builds by a name of its own."""
    environment.mkdir(parents=True, exist_ok=True)
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    text = f"[install]\nconstraint = {lock.as_uri()}\nbuild-constraint = {lock.as_uri()}\n"
    (environment / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]), lock_of(sys.version_info, *sys.argv[2:]))
