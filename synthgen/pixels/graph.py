"""A generator of integers as an ONNX graph: latents and labels in, images out, the same to the bit as every engine.

It is what ``OnnxEngine`` runs and what ``synthgen convert --to onnx`` writes. Activations are 8-bit with their lowest
value as the zero point, channels last. onnxruntime multiplies them in integers; it rescales in float32, which is exact,
since sums stay below 2^24 and scales are powers of two, and rounds half to even.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from synthgen.pixels.folded import LEAKY_SLOPE, STEM_SIDE
from synthgen.pixels.integers import IntegerGenerator, Layer
from synthgen.pixels.layers import row_kernels
from synthgen.pixels.tables import LATENT_LIMIT, LOGIT_LIMIT, grey_table
from synthgen.subject import IMAGE_SIDE

_OPSET, _IR_VERSION = 17, 8
_CONTRIB = "com.microsoft"  # onnxruntime's own operators: convolutions with channels last, and 8-bit leaky ReLU
_PIECE = 7  # pixels; longer ones multiply by more zeros, shorter ones are more to copy
_LATENT_ZERO = LATENT_LIMIT + 1  # latents as unsigned bytes


def onnx_model(generator: IntegerGenerator, *, grey: bool = True) -> onnx.ModelProto:
    """The graph of a generator.

    Its inputs are ``latents``, int8 (N, latent size), and for a conditional generator ``labels``, uint8 (N,); its
    output is ``images``, uint8 (N, 28, 28), or without ``grey`` the pixels' places in the grey table, int32.
    """
    graph = _Graph()
    labelled, before, side = generator.classes > 1, generator.dense, STEM_SIDE
    hidden = graph.dense(before, labelled=labelled)
    for layer in generator.stages:
        hidden = graph.stage(hidden, layer, before, side)
        before, side = layer, 2 * side
    places = graph.image(hidden, generator.last, before)
    if grey:
        graph.grey(places)
    inputs = [helper.make_tensor_value_info("latents", TensorProto.INT8, ["N", generator.latent_size])]
    if labelled:
        inputs.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N"]))
    name, kind = ("images", TensorProto.UINT8) if grey else (places, TensorProto.INT32)
    output = helper.make_tensor_value_info(name, kind, ["N", IMAGE_SIDE, IMAGE_SIDE])
    return helper.make_model(
        helper.make_graph(graph.nodes, "synthgen", inputs, [output], graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)],
        ir_version=_IR_VERSION,
        producer_name="synthgen",
    )


class _Graph:
    """Nodes and constants, added one after the other; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *inputs: str, result: str | None = None, **attributes: Any) -> str:
        name = result or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: npt.ArrayLike, kind: npt.DTypeLike) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(values, kind)), name))
        return name

    def dense(self, layer: Layer, *, labelled: bool) -> str:
        wide = self.add("Cast", "latents", to=TensorProto.INT32)
        shifted = self.add("Add", wide, self._number(_LATENT_ZERO, np.int32))
        sums = self.add(
            "MatMulInteger",
            self.add("Cast", shifted, to=TensorProto.UINT8),
            self.constant(layer.weights.reshape(len(layer.weights), -1), np.int8),
            self._number(_LATENT_ZERO, np.uint8),
        )
        bias = self.constant(layer.bias.reshape(len(layer.bias), -1), np.int32)
        if labelled:
            bias = self.add("Gather", bias, self.add("Cast", "labels", to=TensorProto.INT32), axis=0)
        quotients = self._quotients(self.add("Add", sums, bias), layer.shift.reshape(-1))
        whole = self.add("QuantizeLinear", quotients, self._one(), self._number(-layer.low, np.uint8))
        pixels = self._reshaped(whole, -1, STEM_SIDE, STEM_SIDE, layer.weights.shape[2])
        return self._activated(pixels, layer)

    def stage(self, hidden: str, layer: Layer, before: Layer, side: int) -> str:
        """The even and the odd rows of pixels, each by a convolution, and then one after the other."""
        kernels, extra = row_kernels(layer.weights)
        filters, columns = layer.weights.shape[2], side + extra
        rows = []
        for kernel, pads in kernels:
            found = self.add(
                "QLinearConv",
                *(hidden, self._one(), self._number(-before.lowest, np.uint8)),
                *(self.constant(kernel, np.int8), self._scale(np.tile(layer.shift, 2))),
                self.constant(np.zeros(2 * filters), np.int8),
                *(self._one(), self._number(-layer.low, np.uint8)),
                self.constant(np.tile(layer.bias, 2), np.int32),
                domain=_CONTRIB,
                channels_last=1,
                pads=pads,
            )
            rows.append(self._reshaped(found, -1, side, 1, 2 * columns * filters))
        whole = self.add("Concat", *rows, axis=2)
        if extra:
            whole = self._sliced(whole, filters, (2 * columns - 1) * filters)
        return self._activated(self._reshaped(whole, -1, 2 * side, 2 * side, filters), layer)

    def image(self, hidden: str, layer: Layer, before: Layer) -> str:
        """The places of the logits in the grey table, int32 (N, 28, 28).

        Pieces of a row, with a pixel more on either side, times one banded matrix are what they add to the three rows
        of logits around them.
        """
        zero, channels = self._number(-before.lowest, np.uint8), layer.weights.shape[3]
        edges = self.constant([0, 0, channels, 0, 0, channels], np.int64)
        rows = self.add("Pad", self._reshaped(hidden, -1, IMAGE_SIDE, IMAGE_SIDE * channels), edges, zero)
        pieces = [
            self._reshaped(
                self._sliced(rows, x * channels, (x + _PIECE + 2) * channels),
                -1,
                IMAGE_SIDE,
                1,
                (_PIECE + 2) * channels,
            )
            for x in range(0, IMAGE_SIDE, _PIECE)
        ]
        windows = self.add("Concat", *pieces, axis=2)
        plain, positive = (self.constant(banded_kernel(weights), np.int8) for weights in layer.weights)
        sums = self.add(
            "Add",
            self.add("MatMulInteger", windows, plain, zero),
            self.add("MatMulInteger", self.add("Max", windows, zero), positive, zero),
        )
        logits = self.constant(layer.bias, np.int32)
        for u, part in enumerate(self._split(sums, 3)):
            part = self._reshaped(part, -1, IMAGE_SIDE, IMAGE_SIDE)
            pads = self.constant([0, u - 1, 0, 0, 1 - u, 0], np.int64)
            logits = self.add("Add", logits, part if u == 1 else self.add("Pad", part, pads))
        quotients = self.add("Round", self._quotients(logits, layer.shift))
        limits = (self._number(limit, np.float32) for limit in (-LOGIT_LIMIT, LOGIT_LIMIT - 1))
        places = self.add("Cast", self.add("Clip", quotients, *limits), to=TensorProto.INT32)
        return self.add("Add", places, self._number(LOGIT_LIMIT, np.int32))

    def grey(self, places: str) -> None:
        """Look places up."""
        self.add("Gather", self.constant(grey_table(), np.uint8), places, axis=0, result="images")

    def _sliced(self, values: str, first: int, stop: int) -> str:
        """Part of the last axis."""
        return self.add("Slice", values, *(self.constant([number], np.int64) for number in (first, stop, -1)))

    def _split(self, values: str, parts: int) -> list[str]:
        names = [f"part_{len(self.nodes)}_{i}" for i in range(parts)]
        self.nodes.append(helper.make_node("Split", [values], names, axis=-1))
        return names

    def _activated(self, whole: str, layer: Layer) -> str:
        if not layer.activates:
            return whole
        zeros = (self._number(-zero, np.uint8) for zero in (layer.low, layer.lowest))
        before, after = zeros
        return self.add(
            "QLinearLeakyRelu",
            *(whole, self._one(), before, self._one(), after),
            domain=_CONTRIB,
            alpha=LEAKY_SLOPE,
        )

    def _quotients(self, sums: str, shift: npt.NDArray[np.uint8]) -> str:
        return self.add("Mul", self.add("Cast", sums, to=TensorProto.FLOAT), self._scale(shift))

    def _scale(self, shift: npt.NDArray[np.uint8]) -> str:
        return self.constant(0.5 ** shift.astype(np.float64), np.float32)

    def _reshaped(self, values: str, *shape: int) -> str:
        return self.add("Reshape", values, self.constant(shape, np.int64))

    def _number(self, value: int, kind: npt.DTypeLike) -> str:
        return self.constant(value, kind)

    def _one(self) -> str:
        return self._number(1, np.float32)


def banded_kernel(weights: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
    """The last kernel, int8 (3, 3, in), as what a piece of a row adds to three rows: int8 (9 · in, 3 · 7).

    The piece has a pixel more on either side than what it adds to.
    """
    bands = np.zeros((_PIECE + 2, weights.shape[2], 3, _PIECE), np.int8)
    for x, (u, v) in itertools.product(range(_PIECE), np.ndindex(3, 3)):
        bands[x + 2 - v, :, u, x] = weights[u, v]
    return bands.reshape(-1, 3 * _PIECE)
