"""Sixteen float32 numbers at once, as a type that numba can compile.

LLVM alone gives up on loops over many arrays, which might overlap. Here the vectors are written down: ``load`` and
``store`` touch 16 neighbours of a flat float32 array, unchecked, ``+ - * /`` and the functions below work on all 16.
LLVM maps them on whatever the processor has with the same results: a product and a sum are fused only in ``fma``.
"""

import functools
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types as types  # others have it from here: numba_cache must come before numba
from numba.core.typing import signature
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16  # float32 numbers in the widest register there is (AVX-512)

FLOAT = ir.FloatType()
_INT32 = ir.IntType(32)
VECTOR = ir.VectorType(FLOAT, LANES)
BITS = ir.VectorType(_INT32, LANES)
BFLOAT16_BITS = ir.VectorType(ir.IntType(16), LANES)
_PACKED_BITS = ir.VectorType(ir.IntType(16), 2 * LANES)


class Lanes(types.Type):
    """numba's type of 16 float32 numbers."""


lanes = Lanes("float32x16")


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


def instruction(result: Any = lanes) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make ``emit(builder, *args)``, which emits LLVM instructions, a function of ``args`` that numba can compile.

    ``result`` is numba's type of its value. An array arrives in ``emit`` as a pointer to its first number.
    """

    def define(emit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(emit)
        def typed(context: Any, *kinds: Any) -> Any:
            return result(*(types.intp if isinstance(kind, types.Integer) else kind for kind in kinds)), lower

        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            value = emit(builder, *(plain(context, builder, *each) for each in zip(sig.args, args, strict=True)))
            return context.get_dummy_value() if result is types.void else value

        def plain(context: Any, builder: Any, kind: Any, arg: Any) -> Any:
            return context.make_array(kind)(context, builder, arg).data if isinstance(kind, types.Array) else arg

        return intrinsic(typed)  # type: ignore[no-any-return]

    return define


def read(builder: Any, array: Any, index: Any, kind: Any = VECTOR) -> Any:
    """Return what begins at element ``index`` of an array, as a value of the LLVM type ``kind``."""
    return builder.load(builder.bitcast(builder.gep(array, [index]), kind.as_pointer()), align=4)


def write(builder: Any, array: Any, index: Any, value: Any) -> None:
    """Store ``value`` from element ``index`` of an array on."""
    builder.store(value, builder.bitcast(builder.gep(array, [index]), value.type.as_pointer()), align=4)


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


def splat(builder: Any, number: Any, count: int) -> Any:
    """Return a vector of ``count`` times the same number."""
    single = builder.insert_element(ir.Constant(ir.VectorType(FLOAT, count), ir.Undefined), number, _INT32(0))
    return _shuffle(builder, single, single, [0] * count)


@instruction()
def load(builder: Any, array: Any, index: Any) -> Any:
    """Return ``array[index : index + 16]``; of an array of int16 the bits are those of bfloat16."""
    if array.type.pointee == FLOAT:
        return read(builder, array, index)
    upper = builder.zext(read(builder, array, index, BFLOAT16_BITS), BITS)
    return builder.bitcast(builder.shl(upper, BITS([16] * LANES)), VECTOR)


@instruction(types.void)
def store(builder: Any, array: Any, index: Any, vector: Any) -> None:
    """Set ``array[index : index + 16]``; an array of int16 gets the bits of bfloat16, rounded to the nearest."""
    if array.type.pointee != FLOAT:
        bits, half = builder.bitcast(vector, BITS), BITS([16] * LANES)
        to_even = builder.and_(builder.lshr(bits, half), BITS([1] * LANES))
        bits = builder.add(bits, builder.add(to_even, BITS([0x7FFF] * LANES)))
        vector = builder.trunc(builder.lshr(bits, half), BFLOAT16_BITS)
    write(builder, array, index, vector)


@instruction()
def load_packed(builder: Any, array: Any, index: Any) -> Any:
    """Return the 64 bytes from ``array[index]`` on: 16 numbers of float32, or 32 of bfloat16 as they are."""
    return read(builder, array, index)


@instruction(types.void)
def store_packed(builder: Any, array: Any, index: Any, vector: Any) -> None:
    """Store what ``load_packed`` gave."""
    write(builder, array, index, vector)


@instruction()
def maximum_packed(builder: Any, array: Any, a: Any, b: Any) -> Any:
    """Return the larger numbers of two vectors of ``load_packed(array, …)``; bfloat16 from 0 on, as whole numbers."""
    kind = VECTOR if array.type.pointee == FLOAT else _PACKED_BITS
    a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
    is_larger = builder.fcmp_ordered(">", a, b) if kind is VECTOR else builder.icmp_signed(">", a, b)
    return builder.bitcast(builder.select(is_larger, a, b), VECTOR)


broadcast = instruction()(lambda builder, number: splat(builder, number, LANES))
absolute = instruction()(lambda builder, a: call(builder, "fabs", a))
copysign = instruction()(lambda builder, a, sign: call(builder, "copysign", a, sign))
floor = instruction()(lambda builder, a: call(builder, "floor", a))
minimum = instruction()(lambda builder, a, b: builder.select(builder.fcmp_ordered("<", a, b), a, b))
maximum = instruction()(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))
fma = instruction()(lambda builder, a, b, c: call(builder, "fma", a, b, c))  # a · b + c, rounded once


@instruction()
def load_every_fourth(builder: Any, array: Any, index: Any) -> Any:
    """Return ``array[index : index + 64 : 4]``."""
    block = read(builder, array, index, ir.VectorType(FLOAT, 4 * LANES))
    return _shuffle(builder, block, block, list(range(0, 4 * LANES, 4)))


@instruction()
def select_gt(builder: Any, a: Any, b: Any, above: Any, other: Any) -> Any:
    """Return ``above`` where a > b, else ``other``."""
    return builder.select(builder.fcmp_ordered(">", a, b), above, other)


@instruction()
def blend(builder: Any, first: Any, others: Any) -> Any:
    """Return lane 0 of ``first`` and lanes 1 … 15 of ``others``."""
    return _shuffle(builder, first, others, [0, *range(LANES + 1, 2 * LANES)])


@instruction()
def square_residual(builder: Any, a: Any, product: Any) -> Any:
    """Return a² - ``product``, rounded once: exactly what rounding lost, where ``product`` is a · a."""
    return call(builder, "fma", a, a, builder.fneg(product))


@instruction()
def rsqrt_estimate(builder: Any, a: Any) -> Any:
    """Return about 1 / √a for a > 0: right to three digits, by the processor's estimate where it has one."""
    return builder.fdiv(splat(builder, FLOAT(1.0), LANES), call(builder, "sqrt", a, flags=("fast",)), flags=("fast",))


@instruction(types.boolean)
def any_differs(builder: Any, a: Any, b: Any) -> Any:
    """Return whether a lane of a is not that of b, to the last bit."""
    unlike = builder.icmp_unsigned("!=", builder.bitcast(a, BITS), builder.bitcast(b, BITS))
    every = ir.IntType(LANES)
    return builder.icmp_unsigned("!=", builder.bitcast(unlike, every), every(0))


@instruction()
def hypot_float64(builder: Any, x: Any, y: Any) -> Any:
    """Return √(x² + y²) as C's ``hypotf`` has it: computed in float64, then rounded to float32."""
    x, y = (builder.fpext(number, ir.VectorType(ir.DoubleType(), LANES)) for number in (x, y))
    return builder.fptrunc(call(builder, "sqrt", builder.fadd(builder.fmul(x, x), builder.fmul(y, y))), VECTOR)


@instruction(types.float32)
def reduce_add(builder: Any, vector: Any) -> Any:
    """Return the sum of the 16 lanes, always in the same order."""
    width = LANES
    while width > 1:
        width //= 2
        halves = (_shuffle(builder, vector, vector, [start + i for i in range(width)]) for start in (0, width))
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, _INT32(0))
