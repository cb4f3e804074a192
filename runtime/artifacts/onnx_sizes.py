"""How large the results of an ONNX graph become for one image, from the shapes of its constants and its input.

An operation of a small file can have a large result: a column plus a row, a product of both, a padding. What depends on
constants alone is made already when an engine loads the graph, the rest when it runs. Shapes are inferred for the
operators of `runtime.artifacts.onnx_file.OPERATORS` (onnx.ai/onnx/operators); where a shape depends on values that are
not known here, the number of elements is bounded from above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from stageproof.runtime.artifacts.onnx_file import Constant, Graph, Node

LARGEST_INPUT = 1 << 24
"""Elements of an image: three channels of 2,300 × 2,300."""
PER_ELEMENT = 2048
"""Elements of all results together for each element of the image; a ResNet50 in int8 has 700."""
BESIDE = 1 << 24
"""Elements of all results together beside these, and beside eight for each element of a constant."""


@dataclass(frozen=True)
class Value:
    """A result of which the shape is known, or at least how many elements it has at most."""

    count: int
    shape: tuple[int, ...] | None = None
    integers: tuple[int, ...] | None = None


def assert_bounded(graph: Graph) -> None:
    """Raise ValueError, naming the operator, for a graph whose results are too large, or cannot be bounded."""
    known = {name: _of(constant) for name, constant in graph.constants.items()}
    constants = sum(value.count for value in known.values())
    image = 0
    for name, shape in graph.inputs.items():
        if name in known:
            continue
        fixed = tuple(1 if dim is None else dim for dim in shape)
        if None in shape[1:] or prod(fixed) > LARGEST_INPUT:
            raise ValueError(f"its input has the shape {shape}, expected one image of at most {LARGEST_INPUT} elements")
        known[name] = Value(prod(fixed), fixed)
        image += prod(fixed)
    most, total = PER_ELEMENT * image + 8 * constants + BESIDE, 0
    for node in graph.nodes:
        given = [known[name] for name in node.inputs if name in known]
        if len(given) != len([name for name in node.inputs if name]):
            raise ValueError(f"its operator {node.operator!r} takes what nothing before it gives")
        try:
            result = _RULES.get(node.operator, _same)(node, given)
        except (IndexError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"the size of what its operator {node.operator!r} gives cannot be told") from error
        if min(result.shape or (1,)) < 0:
            raise ValueError(f"its operator {node.operator!r} would give less than nothing")
        total += result.count * max(1, len(node.outputs))
        if total > most:
            raise ValueError(
                f"its operator {node.operator!r} makes its results {total} elements, expected at most {most}"
            )
        known.update(dict.fromkeys(node.outputs, result))


def _of(constant: Constant) -> Value:
    return Value(prod(constant.shape), constant.shape, constant.integers)


def _shaped(shape: Sequence[int]) -> Value:
    return Value(prod(shape), tuple(shape))


def _same(node: Node, given: list[Value]) -> Value:
    return given[0]


def _constant(node: Node, given: list[Value]) -> Value:
    return _of(node.value) if node.value is not None else _shaped((max(1, len(node.numbers.get("value_ints", ()))),))


def _broadcast(node: Node, given: list[Value]) -> Value:
    shapes = [value.shape for value in given]
    if any(shape is None for shape in shapes):
        return Value(prod(value.count for value in given))
    return _shaped(_common([shape for shape in shapes if shape is not None]))


def _common(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape that all of these are widened to; where they do not fit, larger than any engine would make it."""
    rank = max(map(len, shapes))
    rows = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(dims) for dims in zip(*rows, strict=True))


def _windows(node: Node, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Places of a kernel in each direction, at most."""
    found = []
    for axis, (length, width) in enumerate(zip(size, kernel, strict=True)):
        pads = node.numbers.get("pads", ()) or (0,) * 2 * len(kernel)
        stride = (node.numbers.get("strides", ()) or (1,) * len(kernel))[axis]
        dilation = (node.numbers.get("dilations", ()) or (1,) * len(kernel))[axis]
        if stride < 1 or dilation < 1 or width < 1 or min(pads) < 0:
            raise ValueError(
                f"its operator {node.operator!r} has a stride, dilation, kernel or padding below its least"
            )
        padded = length + pads[axis] + pads[axis + len(kernel)]
        places = (padded - dilation * (width - 1) - 1) // stride + 1 + sum(node.numbers.get("ceil_mode", ()))
        found.append(max(-(-length // stride), places))  # the first where it is padded to the same size
    return found


def _convolution(node: Node, given: list[Value]) -> Value:
    maps, weights = _known(given[0]), _known(given[1])
    return _shaped((maps[0], weights[0], *_windows(node, maps[2:], weights[2:])))


def _pool(node: Node, given: list[Value]) -> Value:
    maps = _known(given[0])
    return _shaped((*maps[:2], *_windows(node, maps[2:], node.numbers["kernel_shape"])))


def _global(node: Node, given: list[Value]) -> Value:
    maps = _known(given[0])
    return _shaped((*maps[:2], *(1 for _ in maps[2:])))


def _mean(node: Node, given: list[Value]) -> Value:
    shape = given[0].shape
    axes = node.numbers.get("axes") or (given[1].integers if len(given) > 1 else None)
    if axes is None and len(given) == 1 and node.numbers.get("noop_with_empty_axes", (0,)) == (0,):
        axes = tuple(range(len(shape or ())))
    if shape is None or axes is None:
        return Value(given[0].count)
    gone = {axis % len(shape) for axis in axes}
    keep = node.numbers.get("keepdims", (1,)) != (0,)
    kept = [1 if at in gone else dim for at, dim in enumerate(shape) if keep or at not in gone]
    return _shaped(kept)


def _gemm(node: Node, given: list[Value]) -> Value:
    second = _known(given[1])
    turned = bool(node.numbers.get("transB", (0,))[0])
    inner, columns = reversed(second) if turned else second
    # As many rows as the elements are enough for, whatever their shape was said to be.
    return _shaped((given[0].count // max(1, inner), columns))


def _product(node: Node, given: list[Value]) -> Value:
    first, second = given[0].shape, given[1].shape
    if first is None or second is None:
        return Value(given[0].count * given[1].count)
    if len(first) < 2 or len(second) < 2:
        return Value(max(given[0].count, given[1].count))
    return _shaped((*_common([first[:-2], second[:-2]]), first[-2], second[-1]))


def _reshape(node: Node, given: list[Value]) -> Value:
    count, wanted = given[0].count, given[1].integers
    if wanted is None:
        return Value(count)
    old = given[0].shape or ()
    zero = [old[at] if dim == 0 and at < len(old) else dim for at, dim in enumerate(wanted)]
    rest = prod(dim for dim in zero if dim != -1)
    new = tuple(count // rest if dim == -1 and rest else dim for dim in zero)
    return Value(count, new if prod(new) == count else None)


def _flatten(node: Node, given: list[Value]) -> Value:
    shape = _known(given[0])
    axis = node.numbers.get("axis", (1,))[0] % (len(shape) + 1)
    return _shaped((prod(shape[:axis]), prod(shape[axis:])))


def _transpose(node: Node, given: list[Value]) -> Value:
    shape = _known(given[0])
    order = node.numbers.get("perm") or tuple(reversed(range(len(shape))))
    if sorted(order) != list(range(len(shape))):
        raise ValueError("its operator 'Transpose' names an axis twice")
    return _shaped([shape[axis] for axis in order])


def _shape(node: Node, given: list[Value]) -> Value:
    return Value(64 if given[0].shape is None else len(given[0].shape))


def _gather(node: Node, given: list[Value]) -> Value:
    return Value(max(1, given[1].count) * max(1, given[0].count))


def _together(node: Node, given: list[Value]) -> Value:
    axis, shapes = node.numbers.get("axis", (0,))[0], [value.shape for value in given]
    first = shapes[0]
    if first is None or any(shape is None or len(shape) != len(first) for shape in shapes):
        return Value(sum(value.count for value in given))
    joined = list(first)
    joined[axis] = sum(shape[axis] for shape in shapes if shape is not None)
    return Value(sum(value.count for value in given), tuple(joined))


def _fewer(node: Node, given: list[Value]) -> Value:
    return Value(given[0].count)


def _known(value: Value) -> tuple[int, ...]:
    if value.shape is None:
        raise TypeError("its shape is not known")
    return value.shape


_RULES: dict[str, Callable[[Node, list[Value]], Value]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _broadcast),
    "Constant": _constant,
    "Conv": _convolution,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global,
    "ReduceMean": _mean,
    "Gemm": _gemm,
    "MatMul": _product,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Shape": _shape,
    "Gather": _gather,
    "Concat": _together,
    "Slice": _fewer,
    "Squeeze": _fewer,
    "Unsqueeze": _fewer,
}
"""By operator; the result of any other is as its first input."""
