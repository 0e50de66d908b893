"""What a forward asks of a device: tensor operations, waits of the host for values, uploads; and hooks and calls."""

import sys
from collections import Counter
from functools import cache
from pathlib import Path

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import seeless as sl

PACKAGE = str(Path(sl.__file__).parent) + "/"
aten = torch.ops.aten
# Their result's shape, or a number in Python, depends on values: the host must have them before it can go on.
BY_VALUE = {
    aten._local_scalar_dense,  # item(), bool(), int(), float(), an index
    aten.nonzero,
    aten.masked_select,
    aten._unique,
    aten._unique2,
    aten.unique_dim,
    aten.unique_dim_consecutive,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.allclose,
    aten.is_nonzero,
    aten.multinomial,  # checks its probabilities
    aten._linalg_check_errors,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
FETCHES = {"cpu", "tolist", "numpy", "__array__"}  # do nothing, or only read, on a CPU: no operation shows them


@cache
def file_of_ours(name: str) -> str | None:
    """`core/units.py`, of a file of seeless."""
    return name[len(PACKAGE) :] if name.startswith(PACKAGE) else None


def line_of_ours() -> str | None:
    """`core/units.py:12`: the innermost line of seeless on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        if (file := file_of_ours(frame.f_code.co_filename)) is not None:
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def tensors(*values) -> list[torch.Tensor]:
    """Those among what an operation takes or gives, which is nested in nothing but lists and tuples."""
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors(*value)
    return found


class Counting:
    """Counts, in its `with` block, what a run on a GPU would do. Run it on the CPU: every tensor stands for one on the
    device, but those that `cpu()` or `to("cpu")` gave and what is made of these alone. NumPy is the host's and counts
    for nothing.

    Attributes:
        operations: tensor operations that work on data, so no views: what a GPU would launch something for.
        waits: places where the host needs values of a device tensor: `item`, `tolist`, `cpu`, `numpy`, `bool`, `int`,
            `nonzero`, masks as indices, `masked_select`, `unique`, `repeat_interleave` by a tensor without
            `output_size`, comparisons by `torch.equal`, …
        uploads: tensors made of Python or NumPy data, lists given as indices included, and host tensors put back.
        where: `{"core/units.py:12": waits}`, the innermost lines of seeless that led there; other code has none.
        where_uploads: the same for uploads.
        where_operations: the same for operations.
    """

    def __init__(self) -> None:
        self.operations = self.waits = self.uploads = 0
        self.where: Counter[str] = Counter()
        self.where_uploads: Counter[str] = Counter()
        self.where_operations: Counter[str] = Counter()
        self._functions, self._dispatch = _Functions(self), _Dispatch(self)
        self._host: dict[int, StorageWeakRef] = {}  # weak references keep an address from being used again
        self.plain_value = False  # whether a Python number is being assigned, which no device needs as a tensor

    def __enter__(self) -> "Counting":
        self._dispatch.__enter__()
        self._functions.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._functions.__exit__(*error)
        self._dispatch.__exit__(*error)

    def on_host(self, tensor: torch.Tensor) -> bool:
        return tensor.layout is torch.strided and tensor.untyped_storage()._cdata in self._host

    def to_host(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        self._host[storage._cdata] = StorageWeakRef(storage)

    def operation(self) -> None:
        self.operations += 1
        _add(self.where_operations)

    def wait(self) -> None:
        self.waits += 1
        _add(self.where)

    def upload(self) -> None:
        self.uploads += 1
        _add(self.where_uploads)


def _add(places: Counter) -> None:
    if (line := line_of_ours()) is not None:
        places[line] += 1


class _Functions(TorchFunctionMode):
    """Sees what leaves no trace in the operations of a CPU."""

    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self.counting = counting

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, counting = kwargs or {}, self.counting
        name = getattr(func, "__name__", "")
        given = [*args[1:], *kwargs.values()]
        if name in FETCHES or (name == "to" and "cpu" in [x for x in given if isinstance(x, str)]):
            if counting.on_host(args[0]):
                return func(*args, **kwargs)
            counting.wait()
            result = func(*args, **kwargs)
            if isinstance(result, torch.Tensor):
                with torch.utils._python_dispatch._disable_current_modes():
                    result = result.clone()  # as a copy on another device would be
                counting.to_host(result)
            return result
        if name == "to" and counting.on_host(args[0]) and any(isinstance(x, torch.device) for x in given):
            counting.upload()
            with torch.utils._python_dispatch._disable_current_modes():
                return func(*args, **kwargs).clone()
        if name == "__setitem__" and not isinstance(args[2], torch.Tensor):
            counting.plain_value = True
            try:
                return func(*args, **kwargs)
            finally:
                counting.plain_value = False
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    """Sees every operation."""

    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self.counting = counting

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and shutting the compiler out at every operation takes long

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, counting = kwargs or {}, self.counting
        packet, given = func.overloadpacket, tensors(*args, *kwargs.values())
        if packet is aten.lift_fresh:  # how data of Python and NumPy become a tensor
            if not counting.plain_value:
                counting.upload()
            return func(*args, **kwargs)
        if not func.is_view and packet is not aten._unsafe_view:
            counting.operation()
        host = bool(given) and all(map(counting.on_host, given))
        if not host and self.waits(func, packet, args, kwargs):
            counting.wait()
        result = func(*args, **kwargs)
        if host:
            for tensor in tensors(result):
                counting.to_host(tensor)
        return result

    def waits(self, func, packet, args, kwargs) -> bool:
        if packet in BY_VALUE:
            return True
        if packet in INDEXING:
            filled = packet is not aten.index and self.counting.plain_value  # by masked_fill
            indices = [x for x in args[1] if x is not None]
            return not filled and any(x.dtype in (torch.bool, torch.uint8) for x in indices)
        return func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None


class Calls:
    """Counts, in its `with` block, hooks and Python calls on the calling thread.

    Attributes:
        hooks: hooks that hung on modules when these were called, whoever's they are.
        calls: calls of functions of seeless.
        which: `{"core/layers.py:before": calls}`.
    """

    def __init__(self) -> None:
        self.hooks = self.calls = 0
        self.which: Counter[str] = Counter()

    def __enter__(self) -> "Calls":
        self._handle = register_module_forward_pre_hook(self._module)
        self._before = sys.getprofile()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *error) -> None:
        sys.setprofile(self._before)
        self._handle.remove()

    def _module(self, module, args) -> None:
        self.hooks += len(module._forward_pre_hooks) + len(module._forward_hooks)

    def _event(self, frame, event, argument) -> None:
        code = frame.f_code
        if event == "call" and (file := file_of_ours(code.co_filename)) is not None:
            self.calls += 1
            self.which[f"{file}:{code.co_name}"] += 1
