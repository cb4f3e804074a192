"""Upper bounds on the sizes of an ONNX graph's intermediate results for one image, by shape inference.

A small file can produce large results, by broadcasting a column and a row, by a product, or by padding. Constant
expressions are evaluated when an engine loads the graph, the rest when it runs. Shapes are inferred for the operators
in `runtime.artifacts.onnx_file.OPERATORS` (onnx.ai/onnx/operators); if a shape depends on unknown values, the number of
elements is bounded from above.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from stageproof.runtime.artifacts.onnx_file import Constant, Graph, Node

LARGEST_INPUT = 1 << 24
"""Limit on the elements of the input: three channels of 2,300 × 2,300."""
PER_ELEMENT = 2048
"""Allowed elements of all results together, per element of the input; a ResNet50 in int8 has 700."""
BESIDE = 1 << 24
"""Additional allowed elements of all results together, besides 8 per element of the constants."""


@dataclass(frozen=True)
class Value:
    """A result: its shape, if known, and an upper bound on its number of elements."""

    count: int
    """Upper bound on the number of elements."""
    shape: tuple[int, ...] | None = None
    integers: tuple[int, ...] | None = None
    """Its values, if they are a few known integers, such as a shape."""
    free: int = 0
    """How many of `integers` may come from the shape of a result, and with it from the number of images."""


def assert_bounded(graph: Graph) -> None:
    """Raise ValueError, naming the operator, for a graph whose results are too large or cannot be bounded."""
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
            raise ValueError(f"its operator {node.operator!r} has an undefined input")
        try:
            result = _RULES.get(node.operator, _same)(node, given)
        except (IndexError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"the output size of its operator {node.operator!r} cannot be inferred") from error
        if min(result.shape or (1,)) < 0:
            raise ValueError(f"its operator {node.operator!r} has an output with a negative dimension")
        total += result.count * max(1, len(node.outputs))
        if total > most:
            raise ValueError(
                f"its results up to operator {node.operator!r} have {total} elements, expected at most {most}"
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
    """The broadcast shape; for incompatible shapes, an upper bound of it."""
    rank = max(map(len, shapes))
    rows = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(dims) for dims in zip(*rows, strict=True))


def _windows(node: Node, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Output size in each spatial dimension, at most."""
    found = []
    for axis, (length, width) in enumerate(zip(size, kernel, strict=True)):
        pads = node.numbers.get("pads", ()) or (0,) * 2 * len(kernel)
        stride = (node.numbers.get("strides", ()) or (1,) * len(kernel))[axis]
        dilation = (node.numbers.get("dilations", ()) or (1,) * len(kernel))[axis]
        if stride < 1 or dilation < 1 or width < 1 or min(pads) < 0:
            raise ValueError(
                f"its operator {node.operator!r} has a stride, dilation or kernel below 1, or a padding below 0"
            )
        padded = length + pads[axis] + pads[axis + len(kernel)]
        places = (padded - dilation * (width - 1) - 1) // stride + 1 + sum(node.numbers.get("ceil_mode", ()))
        found.append(max(-(-length // stride), places))  # the first bound is for auto_pad SAME
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
    # The number of rows follows from the number of elements, independent of the declared shape.
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
    shape = given[0].shape
    if shape is None:
        return Value(64)
    start, end = (node.numbers.get(name, (default,))[0] for name, default in (("start", 0), ("end", len(shape))))
    part = shape[start:end]
    return Value(len(part), (len(part),), part, len(part))


def _gather(node: Node, given: list[Value]) -> Value:
    data, index = given[0].shape, given[1].shape
    if data is None or index is None:
        return Value(max(1, given[1].count) * max(1, given[0].count))
    axis = node.numbers.get("axis", (0,))[0] % len(data)
    return _shaped((*data[:axis], *index, *data[axis + 1 :]))


def _slice(node: Node, given: list[Value]) -> Value:
    """The slice of a few known integers with step 1, or of a shape; else an upper bound."""
    values, shape = given[0].integers, given[0].shape
    where = [value.integers for value in given[1:]]
    if len(where) < 2 or where[0] is None or where[1] is None:
        return Value(given[0].count)
    axes = where[2] if len(where) > 2 else tuple(range(len(where[0])))
    if axes is None or shape is None or (len(where) > 3 and set(where[3] or (0,)) != {1}):
        return Value(given[0].count)
    kept = list(shape)
    for axis, start, end in zip(axes, where[0], where[1], strict=True):
        kept[axis % len(shape)] = len(range(shape[axis % len(shape)])[start:end])
    if values is not None and len(shape) == 1:
        part = values[where[0][0] : where[1][0]]
        return Value(len(part), (len(part),), part, min(given[0].free, len(part)))
    return _shaped(kept)


def _squeeze(node: Node, given: list[Value]) -> Value:
    shape = given[0].shape
    axes = node.numbers.get("axes") or (given[1].integers if len(given) > 1 else None)
    if shape is None or axes is None:
        return Value(given[0].count)
    gone = {axis % len(shape) for axis in axes}
    return _shaped([dim for at, dim in enumerate(shape) if at not in gone])


def _unsqueeze(node: Node, given: list[Value]) -> Value:
    shape = given[0].shape
    axes = node.numbers.get("axes") or (given[1].integers if len(given) > 1 else None)
    if shape is None or axes is None:
        return Value(given[0].count)
    rank, rest = len(shape) + len(axes), iter(shape)
    new = {axis % rank for axis in axes}
    return _shaped([1 if at in new else next(rest) for at in range(rank)])


def _expand(node: Node, given: list[Value]) -> Value:
    """Only to known integers, of which one may be the number of images: with two, results grow with its square."""
    shape, wanted = given[0].shape, given[1].integers
    if shape is None or wanted is None or given[1].free > 1:
        raise TypeError("its target shape is unknown")
    return _shaped(_common([shape, wanted]))


def _together(node: Node, given: list[Value]) -> Value:
    integers = [value.integers for value in given]
    if all(part is not None for part in integers):
        values = tuple(number for part in integers if part is not None for number in part)
        return Value(len(values), (len(values),), values, sum(value.free for value in given))
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
        raise TypeError("its shape is unknown")
    return value.shape


_RULES: dict[str, Callable[[Node, list[Value]], Value]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min"), _broadcast),
    "Constant": _constant,
    "Conv": _convolution,
    **dict.fromkeys(("MaxPool", "AveragePool"), _pool),
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
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Expand": _expand,
    "Split": _fewer,
}
"""Operator → shape inference; all others return the shape of their first input."""
