"""How functions are compiled: by numba, once; their machine code is kept on disk and runs without numba from then on.

numba takes longer to import than a second of video takes to label, so it is imported where something has to be compiled
and nowhere else. What is kept is an object file for every function and the types of its arguments. llvmlite loads it,
and ctypes calls it, without the GIL, as numba's own functions call each other. Such a function takes whole numbers,
arrays in C's order and tuples of arrays, returns a whole number or nothing, and allocates no memory.
"""

import ctypes
import functools
import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from llvmlite import binding as llvm  # type: ignore[import-untyped]

from vadis.errors import UsageError
from vadis.files import write_file

_threads = os.environ.get("NUMBA_NUM_THREADS", "1")
if not (_threads.isdecimal() and int(_threads)):  # of which numba would make a ValueError, or print a traceback
    raise UsageError(f"NUMBA_NUM_THREADS must be a positive number, not {_threads!r}", hint="unset it")

OPTIONS = {"nogil": True, "error_model": "numpy"}  # for numba

DESTRUCTOR = "NRT_MemInfo_call_dtor"  # in numba's library

LIBRARY = re.compile(r"llvm\..*|mem(cpy|move|set)|(floor|ceil|sqrt|fma|fabs)f?")
"""Functions that machine code may call: the C library's."""

_log = logging.getLogger(__name__)

Kind = Any  # of an argument: int; of an array its dtype and its number of axes; of a tuple those of its arrays


def cache_directory() -> Path:
    """Return where machine code is kept: below ``$NUMBA_CACHE_DIR``, or ``compiled`` in vadis's own cache."""
    vadis = Path(os.environ.get("VADIS_CACHE") or platformdirs.user_cache_path("vadis", appauthor=False))
    own = vadis.expanduser().absolute() / "compiled"
    # A function of another module may call those of this folder, so the name of the folder depends on all of them.
    sources = b"".join(source.read_bytes() for source in sorted(Path(__file__).parent.glob("*.py")))
    return Path(os.environ.get("NUMBA_CACHE_DIR") or own) / hashlib.sha256(sources).hexdigest()[:16]


class Inlined:
    """A function for use inside ``compiled`` functions only; ``numba`` is what numba makes of it."""

    known: "list[Inlined]" = []  # noqa: RUF012

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self.known.append(self)

    @functools.cached_property
    def numba(self) -> Any:
        return self._make()


def inlined(function: Callable[..., Any]) -> Any:
    """Return ``function`` for use inside ``compiled`` functions only; part of their machine code."""
    return Inlined(lambda: _import_numba().njit(**OPTIONS)(function))


@functools.cache
def _import_numba() -> Any:
    """Return numba, which finds behind an ``Inlined`` what that is."""
    import numba
    from numba.core.registry import cpu_target
    from numba.extending import typeof_impl

    typeof_impl.register(Inlined)(lambda value, _: cpu_target.typing_context.resolve_value_type(value.numba))
    return numba


def as_numba(function: Callable[..., Any]) -> Any:
    """Return ``function`` as numba compiles it, in this process and for whatever arguments it is called with."""
    for each in Inlined.known:  # numba looks for new types only before it begins to compile
        each.numba  # noqa: B018
    return _import_numba().njit(**OPTIONS)(function)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``function`` for Python, compiled at its first call and kept on disk, where that can be written."""
    entries: dict[tuple[Kind, ...], Callable[..., int | None]] = {}
    lock = threading.Lock()

    @functools.wraps(function)
    def call(*args: Any) -> int | None:
        kinds = tuple(map(_kind, args))
        entry = entries.get(kinds)
        if entry is None:
            with lock:
                entry = entries.get(kinds) or entries.setdefault(kinds, _entry(_machine_code(function, kinds), kinds))
        return entry(args)

    return call


def _kind(arg: Any) -> Kind:
    if isinstance(arg, np.ndarray):
        if not arg.flags.c_contiguous:
            raise TypeError(f"an array of {arg.shape} that is not in C's order")
        return arg.dtype.str, arg.ndim
    return tuple(map(_kind, arg)) if isinstance(arg, tuple) else int


def _machine_code(function: Callable[..., Any], kinds: tuple[Kind, ...]) -> bytes:
    """Return an object file, from the disk or compiled: the function ``kernel``."""
    source = Path(function.__code__.co_filename)
    parts = [version("numba"), version("llvmlite"), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    parts += [source.read_text() if source.is_file() else "", repr(kinds)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    place = cache_directory() / f"{function.__module__}.{function.__qualname__}-{digest}.o"
    try:
        content = place.read_bytes()
    except OSError:  # not there yet
        content = b""
    checksum, code = content[:32], content[32:]
    if checksum == hashlib.sha256(code).digest():
        return code
    code = _compile(function, kinds)
    try:
        write_file(place, hashlib.sha256(code).digest() + code)
    except OSError as error:
        _log.warning("compiled code cannot be kept for the next run: %s", error)
    return code


def _compile(function: Callable[..., Any], kinds: tuple[Kind, ...]) -> bytes:
    """Return an object file with ``function`` for arguments of these kinds, by the name ``kernel``."""
    numba, machine = _import_numba(), as_numba(function)

    def typed(kind: Kind) -> Any:
        if kind is int:
            return numba.int64
        if isinstance(kind[0], str):
            return numba.types.Array(numba.from_dtype(np.dtype(kind[0])), kind[1], "C")
        return numba.types.Tuple(tuple(map(typed, kind)))

    machine.compile(tuple(map(typed, kinds)))
    ((signature, overload),) = machine.overloads.items()
    if overload.signature.return_type not in (numba.types.none, numba.int64):
        raise TypeError(f"{function.__name__} returns {overload.signature.return_type}")
    module, triple = llvm.parse_assembly(machine.inspect_llvm(signature)), llvm.Target.from_default_triple()
    kernel = module.get_function(overload.fndesc.llvm_func_name)
    kernel.name = "kernel"
    # Nothing here is an array's last owner, whose memory numba would give back.
    module.link_in(llvm.parse_assembly(f"define void @{DESTRUCTOR}({kernel.type} %memory) {{ unreachable }}"))
    for each in module.functions:  # what Python would call, and with it all that only that needs, goes
        if each.name != "kernel" and not each.is_declaration:
            each.linkage = "internal"
    target = _target(triple)
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(target, llvm.create_pipeline_tuning_options()))
    expected = ["pointer", "pointer", *("pointer" if kind is ctypes.c_void_p else "i64" for kind in _ctypes_of(kinds))]
    found = ["pointer" if argument.type.is_pointer else str(argument.type) for argument in kernel.arguments]
    called = [each.name for each in module.functions if each.is_declaration and not LIBRARY.fullmatch(each.name)]
    if found != expected or called:
        raise TypeError(f"{function.__name__} calls {called}, and takes {found} instead of {expected}")
    return bytes(target.emit_object(module))


def _target(triple: Any = None) -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = triple or llvm.Target.from_default_triple()
    features = llvm.get_host_cpu_features().flatten()
    return triple.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True)


def _ctypes_of(kinds: tuple[Kind, ...]) -> Iterator[Any]:
    """Yield the types in which an argument arrives: of an array as ``_flat`` says."""
    for kind in kinds:
        if kind is int:
            yield ctypes.c_int64
        elif isinstance(kind[0], str):
            pointer, number = ctypes.c_void_p, ctypes.c_int64
            yield from (pointer, pointer, number, number, pointer, *[number] * (2 * kind[1]))
        else:
            yield from _ctypes_of(kind)


def _flat(args: tuple[Any, ...]) -> Iterator[Any]:
    """Yield arguments as numba passes them; of an array: two owners, size, bytes of each, address, shape, strides."""
    for arg in args:
        if isinstance(arg, np.ndarray):
            yield from (None, None, arg.size, arg.itemsize, arg.ctypes.data, *arg.shape, *arg.strides)
        elif isinstance(arg, tuple):
            yield from _flat(arg)
        else:
            yield int(arg)


def _entry(code: bytes, kinds: tuple[Kind, ...]) -> Callable[..., int | None]:
    """Return what calls the function ``kernel`` of an object file."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    pointer = ctypes.c_void_p
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, *_ctypes_of(kinds))
    kernel = prototype(engine.get_function_address("kernel"))

    def call(args: tuple[Any, ...]) -> int | None:
        result, failure = ctypes.c_int64(0), ctypes.c_void_p()
        if kernel(ctypes.addressof(result), ctypes.addressof(failure), *_flat(args)):
            raise RuntimeError("a compiled function failed")
        return result.value

    call.engine = engine  # type: ignore[attr-defined]  # whose memory it runs in
    return call
