"""Tensors that are worked out when somebody uses their numbers."""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch.overrides import enable_reentrant_dispatch
from torch.utils._pytree import tree_map_only


class Deferred(torch.Tensor):
    """A tensor by its shape, dtype and device, whose numbers are made by the first use of them.

    Args:
        make: gives the numbers, of that shape.
    """

    _made: torch.Tensor | None
    # operations arrive in __torch_dispatch__ alone
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type, make: Callable, shape: tuple, dtype: torch.dtype, device: torch.device) -> "Deferred":
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)  # type: ignore[attr-defined]

    def __init__(self, make: Callable, shape: tuple, dtype: torch.dtype, device: torch.device) -> None:
        self._make, self._made = make, None

    def dense(self) -> torch.Tensor:
        """The numbers, as a plain tensor."""
        if self._made is None:
            self._made = self._numbers()
        return self._made

    def _numbers(self) -> torch.Tensor:
        return plain(self._make, self)

    def _used(self, what: str) -> torch.Tensor:
        """The numbers, for an operation of that name."""
        return self.dense()

    def _changed(self, what: str) -> torch.Tensor:
        """The numbers, for an operation of that name which writes into them."""
        return self._used(what)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs, what = kwargs or {}, func.overloadpacket.__name__.strip("_")
        for value in _written(func, args, kwargs):
            value._changed(what)

        def numbers(value: Deferred) -> torch.Tensor:
            return value._used(what)

        return func(*tree_map_only(Deferred, numbers, args), **tree_map_only(Deferred, numbers, kwargs))

    # What torch does without an operation.

    def numpy(self, *, force: bool = False) -> Any:
        """As a tensor's."""
        return self._used("numpy").numpy(force=force)

    def tolist(self) -> Any:
        """As a tensor's."""
        return self._used("tolist").tolist()

    def __setitem__(self, key: Any, value: Any) -> None:
        self._changed("an assignment")[key] = value

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{type(self).__name__}(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        return self._used("a copy").clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._used("pickling").__reduce_ex__(protocol)


def plain(make: Callable[..., torch.Tensor], like: torch.Tensor, *args: Any) -> torch.Tensor:
    """What `make` gives, with the dtype and on the device of `like`; made as if no operation were under way."""
    with ExitStack() as stack:
        with suppress(RuntimeError):  # no operation is under way
            stack.enter_context(enable_reentrant_dispatch())
        found = make(*args)
    return found.detach().to(like.device, like.dtype)


def _written(func: Any, args: tuple, kwargs: dict) -> list[Deferred]:
    """The arguments that an operation writes into."""
    if not func._schema.is_mutable:
        return []
    named = {**dict(zip((each.name for each in func._schema.arguments), args, strict=False)), **kwargs}
    written = [each.name for each in func._schema.arguments if each.alias_info and each.alias_info.is_write]
    return [named[name] for name in written if isinstance(named.get(name), Deferred)]
