"""Prepends `runtime.preprocess`, in ONNX operators that every engine supports and bit-exact, to a model's graph.

Pillow resizes with two matrix products, one for rows and one for columns, rounding to uint8 after each (Pillow,
src/libImaging/Resample.c). Its weights are integers: 2²² times the share of each pixel, rounded. Float32 has 24 bits of
precision, too few for a sum of such products, so each weight is split into 11 high and 11 low bits. Both sums are then
exact for sides up to 4096 pixels and a reduction to no less than a sixteenth; beyond, single pixels may differ by 1.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from stageproof.export.preprocessing import INPUT
from stageproof.runtime.errors import InputError
from stageproof.runtime.preprocess import InputSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

PREFIX = "pixels/"
"""Prefix of the names of all preprocessing nodes."""


def with_pixels(model: ModelProto, spec: InputSpec, temperature: float | None) -> ModelProto:
    """The model with input `pixels`, uint8 (N, H, W, 1 or 3), instead of `images`, float32 (N, C, H, W).

    temperature: if given, the output is `probabilities`, softmax of logits / temperature, instead of `logits`.

    Raises InputError for an input that is not resized bilinearly.
    """
    import onnx
    from onnx import compose

    assert_bilinear(spec)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    pixels = onnx.parser.parse_model(_text(spec, model.ir_version, opset))
    pixels.opset_import.extend(entry for entry in model.opset_import if entry.domain not in ("", "ai.onnx"))
    _prefix(pixels.graph)
    joined = compose.merge_models(pixels, model, io_map=[("tensor", "images")])
    joined.graph.name = model.graph.name
    if temperature is not None:
        _softmax(joined, temperature)
    onnx.checker.check_model(joined, full_check=True)
    return joined


def assert_bilinear(spec: InputSpec) -> None:
    """Raise InputError for an interpolation other than bilinear."""
    if spec.interpolation != "bilinear":
        raise InputError(
            f"--with-preprocessing supports bilinear interpolation only, and this model was trained with "
            f"{spec.interpolation}. Export without it."
        )


def _text(spec: InputSpec, ir_version: int, opset: int) -> str:
    """The preprocessing in ONNX's textual syntax."""
    mean, std = (", ".join(repr(value) for value in values) for values in (spec.mean, spec.std))
    channels = spec.channels
    # Pillow's greyscale conversion: ITU-R 601 luma in 16 bits; pixels with equal channels keep their value.
    grey = """
        one_three = Constant <value = int64[4] {1, 3, 1, 1}> ()
        luma = Constant <value = float[1, 3, 1, 1] {19595, 38470, 7471}> ()
        luma_half = Constant <value_float = 32768.0> ()
        luma_one = Constant <value_float = 65536.0> ()
        three = Expand(float, one_three)
        weighted = Mul(three, luma)
        summed = ReduceSum <keepdims = 1> (weighted, axis_1)
        rounded = Add(summed, luma_half)
        shifted = Div(rounded, luma_one)
        source = Floor(shifted)"""
    colour = """
        source = Identity(float)"""
    return f"""
    <ir_version: {ir_version}, opset_import: ["" : {opset}]>
    preprocessing (uint8[batch, height, width, channels] {INPUT}) => (
        float[batch, {channels}, {spec.height}, {spec.width}] tensor
    )
    <
        int64 index_0 = {{0}}, int64 index_1 = {{1}}, int64 index_2 = {{2}}, int64[1] axis_1 = {{1}},
        int64 row_target = {{{spec.width}}}, int64 column_target = {{{spec.height}}},
        float zero = {{0}}, float one = {{1}}, float two = {{2}}, float half = {{0.5}}, float most = {{255}},
        float bits_11 = {{2048}}, float rounding = {{2097152}},
        float[1, {channels}, 1, 1] mean = {{{mean}}}, float[1, {channels}, 1, 1] std = {{{std}}}
    >
    {{
        shape = Shape({INPUT})
        bytes = Transpose <perm = [0, 3, 1, 2]> ({INPUT})
        float = Cast <to = 1> (bytes){grey if channels == 1 else colour}
        {_weights("row", "index_2", spec.width)}
        row_turned = Transpose <perm = [1, 0]> (row_weights)
        {_weights("column", "index_1", spec.height)}
        {_order()}
        {_product("rows_first", "source", "row_turned", axis=3)}
        {_product("then_columns", "rows_first_pixels", "column_weights", axis=2)}
        {_product("columns_before", "source", "column_weights", axis=2)}
        {_product("then_rows", "columns_before_pixels", "row_turned", axis=3)}
        resized = Where(columns_first, then_rows_pixels, then_columns_pixels)
        scaled = Div(resized, most)
        centred = Sub(scaled, mean)
        tensor = Div(centred, std)
    }}"""


def _weights(name: str, index: str, size: int) -> str:
    """Lines that compute `NAME_weights`, (2 × size, pixels of the image) float32: rows of high bits, then of low bits.

    A pixel's weight is the triangle filter at its distance, in units in which all distances are integers.
    """
    places = ", ".join(str(2 * place + 1) for place in range(size))
    return f"""
        {name}_length = Gather(shape, {index})
        {name}_pixels_in = Cast <to = 1> ({name}_length)
        {name}_size = Constant <value_float = {float(size)}> ()
        {name}_places = Constant <value = float[{size}, 1] {{{places}}}> ()
        {name}_range = Range(zero, {name}_pixels_in, one)
        {name}_doubled = Mul({name}_range, two)
        {name}_middles = Add({name}_doubled, one)
        {name}_from = Mul({name}_middles, {name}_size)
        {name}_to = Mul({name}_places, {name}_pixels_in)
        {name}_apart = Sub({name}_from, {name}_to)
        {name}_distance = Abs({name}_apart)
        {name}_longer = Max({name}_pixels_in, {name}_size)
        {name}_reach = Mul({name}_longer, two)
        {name}_within = Sub({name}_reach, {name}_distance)
        {name}_share = Relu({name}_within)
        {name}_total = ReduceSum <keepdims = 1> ({name}_share, axis_1)
        {name}_share_11 = Mul({name}_share, bits_11)
        {name}_quotient = Div({name}_share_11, {name}_total)
        {name}_high = Floor({name}_quotient)
        {name}_taken = Mul({name}_high, {name}_total)
        {name}_rest = Sub({name}_share_11, {name}_taken)
        {name}_rest_11 = Mul({name}_rest, bits_11)
        {name}_rest_quotient = Div({name}_rest_11, {name}_total)
        {name}_rest_up = Add({name}_rest_quotient, half)
        {name}_low = Floor({name}_rest_up)
        {name}_weights = Concat <axis = 0> ({name}_high, {name}_low)"""


def _order() -> str:
    """Lines that compute `columns_first`, the order of Pillow's passes, which depends on how much each side shrinks.

    Both orders are computed and one is selected: with an If in the graph, OpenVINO 2026.4 returns wrong results for its
    first images.
    """
    return f"""
        column_less = Sub(column_length, column_target)
        row_less = Sub(row_length, row_target)
        row_twice = Mul(row_less, index_2)
        column_shrinks = Greater(column_less, index_0)
        column_shrinks_more = Greater(column_less, row_twice)
        column_wins = And(column_shrinks, column_shrinks_more)
        may_be_first = Constant <value = bool {{{int(columns_may_come_first())}}}> ()
        columns_first = And(column_wins, may_be_first)"""


@cache
def columns_may_come_first() -> bool:
    """Whether the installed Pillow resizes columns before rows if columns shrink by more than twice as much.

    Pillow 13 does (its pull request 9549), older versions start with the rows. Determined by resizing a test image, not
    by the version number.
    """
    import numpy as np
    from PIL import Image

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 20), dtype=np.uint8))
    bilinear = Image.Resampling.BILINEAR
    columns = noise.resize((20, 24), bilinear).resize((24, 24), bilinear)
    return noise.resize((24, 24), bilinear).tobytes() == columns.tobytes()


def _product(name: str, source: str, weights: str, axis: int) -> str:
    """Lines that compute `NAME_pixels`, 0 to 255: `source` resized along `axis`, 2 for columns or 3 for rows."""
    factors = f"{source}, {weights}" if axis == 3 else f"{weights}, {source}"
    return f"""
        {name}_sums = MatMul({factors})
        {name}_high_sum, {name}_low_sum = Split <axis = {axis}, num_outputs = 2> ({name}_sums)
        {name}_low_half = Add({name}_low_sum, rounding)
        {name}_low_over = Div({name}_low_half, bits_11)
        {name}_carry = Floor({name}_low_over)
        {name}_both = Add({name}_high_sum, {name}_carry)
        {name}_over = Div({name}_both, bits_11)
        {name}_whole = Floor({name}_over)
        {name}_pixels = Clip({name}_whole, zero, most)"""


def _prefix(graph: GraphProto) -> None:
    """Add `PREFIX` to all names except those of input and output, in place; name the nodes, which have no names."""

    def renamed(name: str) -> str:
        return name if name in ("", INPUT, "tensor") else PREFIX + name

    for tensor in (*graph.initializer, *graph.value_info):
        tensor.name = renamed(tensor.name)
    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
        node.name = PREFIX + node.output[0].removeprefix(PREFIX)


def _softmax(model: ModelProto, temperature: float) -> None:
    """Append softmax to the model's only output, in place."""
    from onnx import helper, numpy_helper

    graph = model.graph
    output = graph.output[0]
    logits = output.name
    import numpy as np

    graph.initializer.append(numpy_helper.from_array(np.array(temperature, np.float32), PREFIX + "temperature"))
    graph.node.append(
        helper.make_node("Div", [logits, PREFIX + "temperature"], [PREFIX + "divided"], PREFIX + "calibrate")
    )
    graph.node.append(helper.make_node("Softmax", [PREFIX + "divided"], ["probabilities"], PREFIX + "softmax", axis=1))
    output.name = "probabilities"
