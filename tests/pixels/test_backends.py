"""One digest: from every backend, on the kernels of several processors, with any number of threads and images at once.

The digests below are of the first 520 images with seed 7 and uniform labels, as docs/pixels.md defines them. They stand
here so that every machine that runs this file proves the same. Where a shipped checkpoint is made anew,
``draw_digests.py numpy 0 520`` prints them.
"""

import json
import os
import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from draw_digests import COUNT, digest_of, generator_of, inputs_of
from small_generators import SMALL
from threadpoolctl import threadpool_info

from synthgen.errors import SynthgenError, UsageError
from synthgen.pixels.backends import described, expect_backend, for_few, open_backend

PROGRAM = Path(__file__).parents[1] / "draw_digests.py"
DIGESTS = {
    "private": "33607e43c3a8382ec75d3dc9f8e44f9481d49a1c58c6d57dd08aab1c7cb6a34d",
    "private-eps1": "4929a104d5939876a60331c2d35b7ce3c3a8d011c45232a616063b829c43c94a",
    "conditional": "e880c5f2bce0d9d3d38b70c903c54b2f28b2f04c5d2705d45b05c7504abdb55b",
    "kernel 1": "b7b7e89ee54842ae9a9413ee34325756f6e818d93cc72ed5cc4baf3d44e6307b",
    "kernel 2": "32924fdc2ed13d996ad4040115e5a1e8d21a1d9143630dae0088ebe858df7a58",
    "kernel 3": "e62bc438522f2a655bedef1837a10b7afeece447ee10f54df81d4b5fb0617292",
    "kernel 4": "20212cacd49d5f5024da5b8606f190064f52db5067f63e539d16be9d524ebac5",
    "kernel 5": "5cbacb8950f3b90fad2e809d68829976ff1538d10d736e0830edcd7f0cea27cb",
    "kernel 6": "31b371e66e71c58ac5429f7209059a86f068e5d2bd416d0291ee15c399130241",
    "kernel 7": "e42300747e6dbc5d2c630da2623bb3774ca695bcfec3274fbd824af83058f9c6",
}
BACKENDS = [name for name in ("numpy", "onnxruntime", "tensorflow") if find_spec(name)]
QUICK = [name for name in BACKENDS if name != "tensorflow"]  # to start
# OpenBLAS's name for a processor → what the processor must have for it, and what OpenBLAS then calls its kernels.
KERNELS = {
    "Prescott": ("sse3", ["Prescott", "Katmai"]),
    "Nehalem": ("sse4_2", ["Nehalem"]),
    "Sandybridge": ("avx", ["Sandybridge"]),
    "Haswell": ("avx2", ["Haswell"]),
    "Zen": ("avx2", ["Zen", "Haswell"]),
    "SkylakeX": ("avx512f", ["SkylakeX"]),
}


def flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    found = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return found | ({"sse3"} if "pni" in found else set())


def needs(processor: str) -> pytest.MarkDecorator:
    openblas = [
        pool for pool in threadpool_info() if pool["internal_api"] == "openblas" and "numpy" in pool["filepath"]
    ]
    wanting = not openblas or platform.machine() != "x86_64" or KERNELS[processor][0] not in flags()
    return pytest.mark.skipif(wanting, reason=f"this processor, or this numpy, has no kernels of {processor}")


processors = pytest.mark.parametrize("processor", [pytest.param(name, marks=needs(name)) for name in KERNELS])
different = pytest.mark.parametrize(
    "processor", [pytest.param(name, marks=needs(name)) for name in KERNELS if name != "Zen"]
)


def drawn(*arguments: object, **environment: object) -> dict:
    """What ``draw_digests.py`` prints in a process with this environment."""
    command = [sys.executable, PROGRAM, *arguments]
    result = subprocess.run(
        list(map(str, command)),
        env={**os.environ, "PYTHONWARNINGS": "ignore", **{key: str(value) for key, value in environment.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def expect_pinned(digests: dict[str, str]) -> None:
    """Keys begin with a generator's name."""
    assert digests
    assert {key: digest for key, digest in digests.items() if digest != DIGESTS[key.partition(",")[0]]} == {}


@pytest.mark.parametrize("name", DIGESTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_draws_the_pinned_images(backend: str, name: str):
    assert digest_of(name, backend) == DIGESTS[name]


@different
def test_the_kernels_of_any_processor_draw_them(processor: str):
    threads = 1 + sorted(KERNELS).index(processor) % 2
    found = drawn("numpy", 0, COUNT, OPENBLAS_CORETYPE=processor, OPENBLAS_NUM_THREADS=threads)
    (kernels,) = found["kernels"]
    assert kernels in KERNELS[processor][1]
    assert found["threads"] == [threads]
    assert len(found["digests"]) == len(DIGESTS)
    expect_pinned(found["digests"])


def test_numpy_without_vector_instructions_draws_them():
    usable = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not usable:
        pytest.skip("this numpy uses none that could be turned off")
    expect_pinned(drawn("numpy", 0, COUNT, NPY_DISABLE_CPU_FEATURES=" ".join(usable))["digests"])


@pytest.mark.parametrize("size", [1, 7, 256])
@pytest.mark.parametrize("backend", QUICK)
def test_any_number_of_images_at_once_gives_them(backend: str, size: int):
    names = [*SMALL, *(["private"] if size > 1 else [])]
    expect_pinned({f"{name}, {size} at once": digest_of(name, backend, chunk=size, call=size) for name in names})


@pytest.mark.parametrize("call", [1, 7, 256])
@pytest.mark.parametrize("backend", BACKENDS)
def test_calls_for_few_images_and_many_give_the_same(backend: str, call: int):
    expect_pinned({f"kernel 6, calls of {call}": digest_of("kernel 6", backend, chunk=64, call=call)})


@pytest.mark.parametrize("backend", QUICK)
def test_an_image_depends_on_its_own_latent_and_label_alone(backend: str):
    generator, distribution = generator_of("kernel 3")
    noise, labels = inputs_of(generator, distribution)
    draw = open_backend(generator, backend)
    order = np.random.default_rng(1).permutation(COUNT)
    np.testing.assert_array_equal(draw(noise[order], labels[order]), draw(noise, labels)[order])
    assert (draw(noise, labels) != draw(noise, np.roll(labels, 1))).any()
    assert draw(noise[:0], labels[:0]).shape == (0, 28, 28)


@pytest.mark.slow
@processors
@pytest.mark.parametrize("threads", [1, 2])
def test_numpy_on_all_kernels_threads_chunks_and_calls(processor: str, threads: int):
    found = drawn("numpy", "1,7,256", "1,7,256", OPENBLAS_CORETYPE=processor, OPENBLAS_NUM_THREADS=threads)
    assert len(found["digests"]) == 9 * len(DIGESTS)
    expect_pinned(found["digests"])


@pytest.mark.slow
@pytest.mark.skipif("onnxruntime" not in BACKENDS, reason="needs onnxruntime")
@pytest.mark.parametrize("threads", [1, 2])
def test_onnxruntime_in_all_chunks_and_calls(threads: int):
    found = drawn("onnxruntime", "1,7,256", "1,7,256", OMP_NUM_THREADS=threads)
    assert len(found["digests"]) == 9 * len(DIGESTS)
    expect_pinned(found["digests"])


@pytest.mark.slow
@pytest.mark.skipif("tensorflow" not in BACKENDS, reason="needs TensorFlow")
@pytest.mark.parametrize(
    "environment",
    [
        {"OMP_NUM_THREADS": 1, "TF_NUM_INTRAOP_THREADS": 1},
        {"OMP_NUM_THREADS": 2, "TF_NUM_INTRAOP_THREADS": 2},
        {"TF_ENABLE_ONEDNN_OPTS": 0},
        {"ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"ONEDNN_MAX_CPU_ISA": "AVX2"},
        {"ONEDNN_DEFAULT_FPMATH_MODE": "ANY"},  # factors of 8 bits: sums of float32
        {"TF_XLA_FLAGS": "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"},
    ],
    ids=str,
)
def test_tensorflow_on_any_kernels_threads_chunks_and_calls(environment):
    found = drawn("tensorflow", "1,7,256", "7,256", **environment)
    assert len(found["digests"]) == 6 * len(DIGESTS)
    expect_pinned(found["digests"])


@pytest.mark.parametrize("backend", ["", "numpi", "numpy:gpu", "onnxruntime:0", "NUMPY", "auto:cpu", "numpy\n"])
def test_an_unknown_backend_is_refused_in_one_line(backend: str):
    with pytest.raises(UsageError, match="expected auto, numpy, onnxruntime or tensorflow") as refusal:
        expect_backend(backend)
    assert "\n" not in str(refusal.value)


def test_auto_is_numpy_for_few_images_and_the_fastest_for_many():
    assert for_few("auto", 100) == "numpy"
    assert for_few("auto", 60_000) == "auto"
    assert for_few("onnxruntime", 100) == "onnxruntime"
    fastest = "onnxruntime" if "onnxruntime" in BACKENDS else "numpy"
    assert open_backend(generator_of("kernel 2")[0], "auto").name == fastest
    assert described("auto").split()[0] == fastest
    assert described("numpy") == f"numpy {np.__version__}"


@pytest.mark.skipif("tensorflow" not in BACKENDS, reason="needs TensorFlow")
@pytest.mark.parametrize("device", ["gpu:77", "tpu", "cpu:x", "cpu\nx"])
def test_a_missing_device_is_refused_in_one_line(device: str):
    with pytest.raises(UsageError, match=r"TensorFlow finds only .*cpu:0") as refusal:
        open_backend(generator_of("kernel 2")[0], f"tensorflow:{device}")
    assert "\n" not in str(refusal.value)


@pytest.mark.skipif("tensorflow" not in BACKENDS, reason="needs TensorFlow")
def test_tensorflow_leaves_its_settings_as_they_were():
    import tensorflow as tf

    draw = open_backend(generator_of("kernel 2")[0], "tensorflow:cpu")
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    draw(np.zeros((3, 7), np.int8), None)
    assert tf.config.experimental.tensor_float_32_execution_enabled() == before


@pytest.mark.parametrize("backend", QUICK[1:])
def test_a_backend_that_draws_other_images_is_refused(backend: str, monkeypatch: pytest.MonkeyPatch):
    generator, _ = generator_of("kernel 4")
    monkeypatch.setattr("synthgen.pixels.drawing.NumpyBackend.__call__", lambda self, latents, labels: np.zeros(1))
    with pytest.raises(SynthgenError, match="draws other images here than numpy does"):
        open_backend(generator, backend)
