"""Sixteen float32 numbers at once, as a type that numba can compile.

numba leaves vectorising to LLVM, which gives up on loops over many arrays (it would have to prove that none overlaps
another). Here the vectors are written down instead: ``load`` and ``store`` touch 16 neighbours of a flat float32
array, ``+ - * /`` and the functions below work on all 16. LLVM maps them on whatever the processor has (one AVX-512
register, two of AVX, four of SSE or NEON) with the same results: a product and a sum are fused only where it is said.

Nothing here checks a bound: arrays are padded by whoever calls.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
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


def _define_operator(python: Callable[[Any, Any], Any], instruction: str) -> None:
    """Make ``python`` (``operator.add`` …) of two vectors the LLVM ``instruction``."""

    class Template(ConcreteTemplate):  # type: ignore[misc]
        cases = (signature(lanes, lanes, lanes),)

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    infer_global(python)(Template)
    lower_builtin(python, lanes, lanes)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")


def instruction(lowering: Callable[..., Any]) -> Callable[..., Any]:
    """numba's ``intrinsic``, typed: ``lowering`` becomes a function that is called without its first argument."""
    return intrinsic(lowering)  # type: ignore[no-any-return]


def address(context: Any, builder: Any, kind: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Pointer to element ``index`` of a flat array, as a pointer to ``kind``."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _shuffled(builder: Any, first: Any, second: Any, order: list[int]) -> Any:
    """The elements ``order`` of ``first`` and ``second`` laid end to end."""
    mask = ir.Constant(ir.VectorType(_INT32, len(order)), [ir.Constant(_INT32, position) for position in order])
    return builder.shuffle_vector(first, second, mask)


def call(builder: Any, name: str, *args: Any, flags: tuple[str, ...] = ()) -> Any:
    """Call the LLVM intrinsic ``name`` of vectors like ``args``."""
    vector = args[0].type
    name = f"llvm.{name}.v{vector.count}{vector.element.intrinsic_name}"
    kind = ir.FunctionType(vector, [vector] * len(args))
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, args, fastmath=flags)


def spread_over(builder: Any, number: Any, lanes: int = LANES) -> Any:
    """A vector of ``lanes`` times the same number."""
    vector = ir.VectorType(_FLOAT, lanes)
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(_INT32, 0))
    return _shuffled(builder, single, single, [0] * lanes)


@instruction
def load(typing: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 16]`` of a flat float32 array."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(address(context, builder, VECTOR, sig.args[0], *args), align=4)

    return lanes(array, types.intp), lower


@instruction
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + 16] = value``."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], address(context, builder, VECTOR, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), lower


@instruction
def spread(typing: Any, number: Any) -> Any:
    """The same number in all 16 lanes."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return spread_over(builder, args[0])

    return lanes(types.float32), lower


@instruction
def low(typing: Any, a: Any, b: Any) -> Any:
    """The smaller number, lane by lane."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return lanes(lanes, lanes), lower


@instruction
def high(typing: Any, a: Any, b: Any) -> Any:
    """The larger number, lane by lane."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return lanes(lanes, lanes), lower


@instruction
def choose_above(typing: Any, a: Any, b: Any, above: Any, otherwise: Any) -> Any:
    """``above`` where a > b, else ``otherwise``."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return lanes(lanes, lanes, lanes, lanes), lower


@instruction
def choose_first(typing: Any, first: Any, others: Any) -> Any:
    """Lane 0 of ``first`` and lanes 1 … 15 of ``others``."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _shuffled(builder, args[0], args[1], [0, *range(LANES + 1, 2 * LANES)])

    return lanes(lanes, lanes), lower


@instruction
def fused(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "fma", *args)

    return lanes(lanes, lanes, lanes), lower


@instruction
def lost(typing: Any, a: Any, product: Any) -> Any:
    """a² - ``product``, rounded once: exactly what rounding lost, where ``product`` is a · a."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "fma", args[0], args[0], builder.fneg(args[1]))

    return lanes(lanes, lanes), lower


@instruction
def magnitude(typing: Any, a: Any) -> Any:
    """|a|."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "fabs", args[0])

    return lanes(lanes), lower


@instruction
def with_sign_of(typing: Any, sign: Any, a: Any) -> Any:
    """|a| with the sign of ``sign``."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "copysign", args[1], args[0])

    return lanes(lanes, lanes), lower


@instruction
def floor(typing: Any, a: Any) -> Any:
    """The largest whole numbers not above a."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return call(builder, "floor", args[0])

    return lanes(lanes), lower


@instruction
def inverse_root(typing: Any, a: Any) -> Any:
    """About 1 / √a for a > 0: right to three digits at least, by the processor's estimate where it has one."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        loose = ("fast",)
        one = spread_over(builder, ir.Constant(_FLOAT, 1.0))
        return builder.fdiv(one, call(builder, "sqrt", args[0], flags=loose), flags=loose)

    return lanes(lanes), lower


@instruction
def any_differs(typing: Any, a: Any, b: Any) -> Any:
    """Whether a lane of a is not that of b, to the last bit."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        unlike = builder.icmp_unsigned("!=", *(builder.bitcast(vector, BITS) for vector in args))
        every = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(unlike, every), every(0))

    return types.boolean(lanes, lanes), lower


@instruction
def length_by_double(typing: Any, x: Any, y: Any) -> Any:
    """√(x² + y²) as C's ``hypotf`` has it: computed in float64, then rounded to float32."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x, y = (builder.fpext(number, ir.VectorType(ir.DoubleType(), LANES)) for number in args)
        root = call(builder, "sqrt", builder.fadd(builder.fmul(x, x), builder.fmul(y, y)))
        return builder.fptrunc(root, VECTOR)

    return lanes(lanes, lanes), lower


@instruction
def total(typing: Any, a: Any) -> Any:
    """The sum of the 16 lanes, always in the same order."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector, width = args[0], LANES
        while width > 1:
            width //= 2
            halves = (_shuffled(builder, vector, vector, [start + i for i in range(width)]) for start in (0, width))
            vector = builder.fadd(*halves)
        return builder.extract_element(vector, ir.Constant(_INT32, 0))

    return types.float32(lanes), lower


@instruction
def load_every_fourth(typing: Any, array: Any, index: Any) -> Any:
    """``array[index : index + 64 : 4]`` of a flat float32 array."""

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        quads = ir.VectorType(_FLOAT, 4 * LANES)
        block = builder.load(address(context, builder, quads, sig.args[0], *args), align=4)
        return _shuffled(builder, block, block, list(range(0, 4 * LANES, 4)))

    return lanes(array, types.intp), lower
