"""Sixteen float32 numbers at once, as a type that numba can compile.

numba leaves vectorising to LLVM, which gives up on loops over many arrays (it would have to prove that none overlaps
another). Here the vectors are written down instead: ``load`` and ``store`` touch 16 neighbours of a flat float32
array, ``+ - * /`` and the functions below work on all 16. LLVM maps them on whatever the processor has (one AVX-512
register, two of AVX, four of SSE or NEON) with the same results: a product and a sum are fused only in ``fma``.

Nothing here checks a bound: arrays are padded by whoever calls.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types as types  # others have it from here: numba_cache must come before numba
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16  # float32 numbers in the widest register there is (AVX-512)

_FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
VECTOR = ir.VectorType(_FLOAT, LANES)
BITS = ir.VectorType(_INT32, LANES)


class Lanes(types.Type):
    """numba's type of 16 float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name="float32x16")


lanes = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, VECTOR)


def _define_operator(python: Callable[[Any, Any], Any], name: str) -> None:
    """Make ``python`` (``operator.add`` …) of two vectors the LLVM instruction ``name``."""

    class Template(ConcreteTemplate):  # type: ignore[misc]
        cases = (signature(lanes, lanes, lanes),)

    infer_global(python)(Template)
    lower_builtin(python, lanes, lanes)(lambda context, builder, sig, args: getattr(builder, name)(*args))


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


def instruction(lowering: Callable[..., Any]) -> Callable[..., Any]:
    """Type numba's ``intrinsic``: ``lowering`` becomes a function that is called without its first argument."""
    return intrinsic(lowering)  # type: ignore[no-any-return]


def address(context: Any, builder: Any, kind: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return a pointer to element ``index`` of a flat array, as a pointer to ``kind``."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def call(builder: Any, name: str, *args: Any, flags: tuple[str, ...] = ()) -> Any:
    """Call the LLVM intrinsic ``name`` of vectors like ``args``."""
    vector = args[0].type
    name = f"llvm.{name}.v{vector.count}{vector.element.intrinsic_name}"
    kind = ir.FunctionType(vector, [vector] * len(args))
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, args, fastmath=flags)


def _shuffle(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    """Take the elements ``order`` of ``first`` and ``second`` laid end to end."""
    mask = ir.Constant(ir.VectorType(_INT32, len(order)), [ir.Constant(_INT32, position) for position in order])
    return builder.shuffle_vector(first, second, mask)


def splat(builder: Any, number: Any, lanes: int = LANES) -> Any:
    """Return a vector of ``lanes`` times the same number."""
    vector = ir.VectorType(_FLOAT, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_INT32, 0))
    return _shuffle(builder, single, single, [0] * lanes)


def _lowered(sig: Any, emit: Callable[..., Any]) -> Any:
    """Return what ``intrinsic`` wants of a function of plain values: ``emit(builder, *args)`` makes its result."""
    return sig, lambda context, builder, sig, args: emit(builder, *args)


@instruction
def load(typing: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 16]`` of a flat float32 array."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(address(context, builder, VECTOR, sig.args[0], *args), align=4)

    return lanes(array, types.intp), lower


@instruction
def load_every_fourth(typing: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 64 : 4]`` of a flat float32 array."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        quads = ir.VectorType(_FLOAT, 4 * LANES)
        block = builder.load(address(context, builder, quads, sig.args[0], *args), align=4)
        return _shuffle(builder, block, block, list(range(0, 4 * LANES, 4)))

    return lanes(array, types.intp), lower


@instruction
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + 16] = value``."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], address(context, builder, VECTOR, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), lower


@instruction
def broadcast(typing: Any, number: Any) -> Any:
    """The same number in all 16 lanes."""
    return _lowered(lanes(types.float32), splat)


@instruction
def minimum(typing: Any, a: Any, b: Any) -> Any:
    """The smaller number, lane by lane."""
    return _lowered(lanes(lanes, lanes), lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))


@instruction
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger number, lane by lane."""
    return _lowered(lanes(lanes, lanes), lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


@instruction
def select_gt(typing: Any, a: Any, b: Any, above: Any, other: Any) -> Any:
    """``above`` where a > b, else ``other``."""

    def emit(builder: Any, a: Any, b: Any, above: Any, other: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", a, b), above, other)

    return _lowered(lanes(lanes, lanes, lanes, lanes), emit)


@instruction
def blend(typing: Any, first: Any, others: Any) -> Any:
    """Lane 0 of ``first`` and lanes 1 … 15 of ``others``."""
    order = [0, *range(LANES + 1, 2 * LANES)]
    return _lowered(lanes(lanes, lanes), lambda builder, first, others: _shuffle(builder, first, others, order))


@instruction
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once."""
    return _lowered(lanes(lanes, lanes, lanes), lambda builder, a, b, c: call(builder, "fma", a, b, c))


@instruction
def square_residual(typing: Any, a: Any, product: Any) -> Any:
    """a² - ``product``, rounded once: exactly what rounding lost, where ``product`` is a · a."""

    def emit(builder: Any, a: Any, product: Any) -> Any:
        return call(builder, "fma", a, a, builder.fneg(product))

    return _lowered(lanes(lanes, lanes), emit)


@instruction
def absolute(typing: Any, a: Any) -> Any:
    """|a|."""
    return _lowered(lanes(lanes), lambda builder, a: call(builder, "fabs", a))


@instruction
def copysign(typing: Any, a: Any, sign: Any) -> Any:
    """|a| with the sign of ``sign``."""
    return _lowered(lanes(lanes, lanes), lambda builder, a, sign: call(builder, "copysign", a, sign))


@instruction
def floor(typing: Any, a: Any) -> Any:
    """The largest whole numbers not above a."""
    return _lowered(lanes(lanes), lambda builder, a: call(builder, "floor", a))


@instruction
def rsqrt_estimate(typing: Any, a: Any) -> Any:
    """About 1 / √a for a > 0: right to three digits at least, by the processor's estimate where it has one."""

    def emit(builder: Any, a: Any) -> Any:
        one = splat(builder, ir.Constant(_FLOAT, 1.0))
        return builder.fdiv(one, call(builder, "sqrt", a, flags=("fast",)), flags=("fast",))

    return _lowered(lanes(lanes), emit)


@instruction
def any_differs(typing: Any, a: Any, b: Any) -> Any:
    """Whether a lane of a is not that of b, to the last bit."""

    def emit(builder: Any, a: Any, b: Any) -> Any:
        unlike = builder.icmp_unsigned("!=", builder.bitcast(a, BITS), builder.bitcast(b, BITS))
        every = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(unlike, every), every(0))

    return _lowered(types.boolean(lanes, lanes), emit)


@instruction
def hypot_float64(typing: Any, x: Any, y: Any) -> Any:
    """√(x² + y²) as C's ``hypotf`` has it: computed in float64, then rounded to float32."""

    def emit(builder: Any, *args: Any) -> Any:
        x, y = (builder.fpext(number, ir.VectorType(ir.DoubleType(), LANES)) for number in args)
        root = call(builder, "sqrt", builder.fadd(builder.fmul(x, x), builder.fmul(y, y)))
        return builder.fptrunc(root, VECTOR)

    return _lowered(lanes(lanes, lanes), emit)


@instruction
def reduce_add(typing: Any, a: Any) -> Any:
    """The sum of the 16 lanes, always in the same order."""

    def emit(builder: Any, vector: Any) -> Any:
        width = LANES
        while width > 1:
            width //= 2
            halves = (_shuffle(builder, vector, vector, [start + i for i in range(width)]) for start in (0, width))
            vector = builder.fadd(*halves)
        return builder.extract_element(vector, ir.Constant(_INT32, 0))

    return _lowered(types.float32(lanes), emit)
