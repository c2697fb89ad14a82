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

from synthgen.fashion import IMAGE_SIDE
from synthgen.pixels.folded import LEAKY_SLOPE, STEM_SIDE
from synthgen.pixels.integers import IntegerGenerator, Layer
from synthgen.pixels.layers import phase_kernel
from synthgen.pixels.tables import LATENT_LIMIT, LOGIT_LIMIT, grey_table

_OPSET, _IR_VERSION = 17, 8
_CONTRIB = "com.microsoft"  # onnxruntime's own operators: convolutions with channels last, and 8-bit leaky ReLU
_LATENT_ZERO = LATENT_LIMIT + 1  # latents as unsigned bytes


def onnx_model(generator: IntegerGenerator) -> onnx.ModelProto:
    """The graph of a generator.

    Its inputs are ``latents``, int8 (N, latent size), and for a conditional generator ``labels``, uint8 (N,); its
    output is ``images``, uint8 (N, 28, 28).
    """
    graph = _Graph()
    labelled, before, side = generator.classes > 1, generator.dense, STEM_SIDE
    hidden = graph.dense(before, labelled=labelled)
    for layer in generator.stages:
        hidden = graph.stage(hidden, layer, before, side)
        before, side = layer, 2 * side
    graph.image(hidden, generator.last, before)
    inputs = [helper.make_tensor_value_info("latents", TensorProto.INT8, ["N", generator.latent_size])]
    if labelled:
        inputs.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N"]))
    output = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", IMAGE_SIDE, IMAGE_SIDE])
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
        """All four phases as the channels of one convolution, then each at its pixel."""
        kernel, pads, grid = phase_kernel(layer.weights, side)
        filters = layer.weights.shape[2]
        phases = self.add(
            "QLinearConv",
            *(hidden, self._one(), self._number(-before.lowest, np.uint8)),
            *(self.constant(kernel, np.int8), self._scale(np.tile(layer.shift, 4))),
            self.constant(np.zeros(4 * filters), np.int8),
            *(self._one(), self._number(-layer.low, np.uint8)),
            self.constant(np.tile(layer.bias, 4), np.int32),
            domain=_CONTRIB,
            channels_last=1,
            pads=pads,
        )
        apart = self._reshaped(phases, -1, grid, grid, 2, 2, filters)
        whole = self._reshaped(self.add("Transpose", apart, perm=[0, 1, 3, 2, 4, 5]), -1, 2 * grid, 2 * grid, filters)
        if grid > side:  # phase 1 comes first, and its first pixels lie before the image
            first, stop, axes = ([1, 1], [2 * grid - 1] * 2, [1, 2])
            whole = self.add("Slice", whole, *(self.constant(numbers, np.int64) for numbers in (first, stop, axes)))
        return self._activated(whole, layer)

    def image(self, hidden: str, layer: Layer, before: Layer) -> None:
        """A row of pixels times one banded matrix is what it adds to the three rows of logits around it."""
        zero = self._number(-before.lowest, np.uint8)
        rows = self._reshaped(hidden, -1, IMAGE_SIDE, IMAGE_SIDE * layer.weights.shape[3])
        plain, positive = (self.constant(banded_kernel(weights), np.int8) for weights in layer.weights)
        sums = self.add(
            "Add",
            self.add("MatMulInteger", rows, plain, zero),
            self.add("MatMulInteger", self.add("Max", rows, zero), positive, zero),
        )
        logits = self.constant(layer.bias, np.int32)
        for u, part in enumerate(self._split(sums, 3)):
            pads = self.constant([0, u - 1, 0, 0, 1 - u, 0], np.int64)
            logits = self.add("Add", logits, part if u == 1 else self.add("Pad", part, pads))
        quotients = self.add("Round", self._quotients(logits, layer.shift))
        limits = (self._number(limit, np.float32) for limit in (-LOGIT_LIMIT, LOGIT_LIMIT - 1))
        places = self.add("Cast", self.add("Clip", quotients, *limits), to=TensorProto.INT32)
        places = self.add("Add", places, self._number(LOGIT_LIMIT, np.int32))
        self.add("Gather", self.constant(grey_table(), np.uint8), places, axis=0, result="images")

    def _split(self, values: str, parts: int) -> list[str]:
        names = [f"part_{len(self.nodes)}_{i}" for i in range(parts)]
        self.nodes.append(helper.make_node("Split", [values], names, axis=2))
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
    """The last kernel, int8 (3, 3, in), as what a row of pixels adds to three rows: int8 (28 · in, 3 · 28)."""
    bands = np.zeros((IMAGE_SIDE, weights.shape[2], 3, IMAGE_SIDE), np.int8)
    for x, (u, v) in itertools.product(range(IMAGE_SIDE), np.ndindex(3, 3)):
        if 0 <= x + v - 1 < IMAGE_SIDE:
            bands[x, :, u, x + v - 1] = weights[u, v]
    return bands.reshape(-1, 3 * IMAGE_SIDE)
