"""The backend on onnxruntime: 8-bit products, summed in 32-bit integers, on one thread."""

import numpy as np
import numpy.typing as npt
import onnxruntime

from synthgen.index import pieces
from synthgen.pixels.drawing import Latents, expect_inputs
from synthgen.pixels.graph import onnx_model
from synthgen.pixels.integers import IntegerGenerator
from synthgen.pixels.tables import grey_table
from synthgen.subject import IMAGE_SIDE, Images

_CHUNK = 128  # images; memory for more is no faster


class OnnxBackend:
    """See ``Backend``."""

    name = "onnxruntime"

    def __init__(self, generator: IntegerGenerator) -> None:
        self._latent_size, self._classes = generator.latent_size, generator.classes
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # processes share the processors
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            onnx_model(generator, grey=False).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, latents: Latents, labels: npt.NDArray[np.uint8] | None) -> Images:
        expect_inputs(latents, labels, self._latent_size, self._classes)
        images = np.empty((len(latents), IMAGE_SIDE, IMAGE_SIDE), np.uint8)
        for piece in pieces(len(latents), _CHUNK):
            inputs = {"latents": latents[piece]} | ({} if labels is None else {"labels": labels[piece]})
            (places,) = self._session.run(None, inputs)
            grey_table().take(places, out=images[piece], mode="clip")  # onnxruntime's Gather takes ten times as long
        return images
