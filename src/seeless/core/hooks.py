"""Hooks and instance attributes that can be taken off again, in reverse order."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

_ABSENT = object()


class HookSet:
    """A set of changes to modules; `remove` undoes all of them, the last one first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def before(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs)` before the module's forward; it may return new `(args, kwargs)`."""
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        self._undo.append(handle.remove)

    def after(self, module: nn.Module, hook: Callable) -> None:
        """Call `hook(module, args, kwargs, output)` after the module's forward, also when it raised."""
        handle = module.register_forward_hook(hook, with_kwargs=True, always_call=True)
        self._undo.append(handle.remove)

    def override(self, owner: Any, name: str, value: Any) -> None:
        """Put an attribute on the instance; undoing brings back what its `__dict__` held, or nothing."""
        before = vars(owner).get(name, _ABSENT)

        def undo() -> None:
            if before is _ABSENT:
                vars(owner).pop(name, None)
            else:
                vars(owner)[name] = before

        vars(owner)[name] = value
        self._undo.append(undo)

    def enter(self, context: AbstractContextManager) -> None:
        """Enter a context; undoing leaves it."""
        context.__enter__()
        self._undo.append(lambda: context.__exit__(None, None, None))  # type: ignore[arg-type, func-returns-value]

    def remove(self) -> None:
        while self._undo:
            self._undo.pop()()
