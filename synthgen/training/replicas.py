"""Training on several devices or machines at once, so that what comes out is what one device would give, to rounding.

Every replica is given the whole batch and takes its own rows of it; random numbers are drawn for the whole batch and
cut in the same way; statistics over the batch are summed over the replicas, and so are losses and gradients, each
replica's weighted with its share of the rows. The replicas come from ``tf.distribute``.
"""

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from synthgen.errors import UsageError
from synthgen.model.parts import part_of_this_replica, sum_over_replicas
from synthgen.subject import IMAGE_SIDE
from synthgen.training.strategy import Strategy, wait_for_workers

Step = Callable[..., tuple[tf.Tensor, ...]]

_SIGNATURE = [
    tf.TensorSpec((None, IMAGE_SIDE, IMAGE_SIDE), tf.uint8),
    tf.TensorSpec((None,), tf.uint8),
    tf.TensorSpec((), tf.int64),
]


class Replicas:
    """The devices that a training runs on; without a strategy the one that TensorFlow chooses.

    Args:
        strategy: None trains as if there were no such thing.

    Raises:
        UsageError: there are fewer devices than replicas asked for, or the other workers cannot be joined.
        TrainingError: another worker does not come within the strategy's timeout.
    """

    def __init__(self, strategy: Strategy | None = None) -> None:
        self._chosen = strategy
        self._strategy = None if strategy is None else _open(strategy)
        self._any = tf.function(self._any_of)

    @property
    def count(self) -> int:
        """How many replicas there are, over all workers."""
        return 1 if self._strategy is None else int(self._strategy.num_replicas_in_sync)

    @property
    def shared(self) -> bool:
        """Whether steps are shared out, be it among one."""
        return self._strategy is not None

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self._chosen is None or self._chosen.is_chief

    def describe(self) -> dict[str, Any] | None:
        """What a run's record says of them; None without a strategy."""
        if self._chosen is None:
            return None
        return {"name": self._chosen.name, "workers": self._chosen.workers, "replicas": self.count}

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Variables made within are held by every replica."""
        if self._strategy is None:
            yield
            return
        with self._strategy.scope(), tf.variable_creator_scope(_alike_everywhere):
            yield

    def compiled(self, step: Step) -> Step:
        """A step as a graph; where batches are shared out, one for every choice of the flags.

        Args:
            step: (images uint8 (N, 28, 28), labels uint8 (N,), the step's number int64, flags of Python) → means over
                these N images. Where batches are shared out, N is this replica's part of what the graph is given, and
                the graph gives the means over all.
        """
        if self._strategy is None:
            return tf.function(step, reduce_retracing=True)  # type: ignore[no-any-return]
        strategy = self._strategy

        @functools.cache
        def graph(*plain: bool) -> Step:
            def on_replica(images: tf.Tensor, labels: tf.Tensor, number: tf.Tensor) -> Any:
                with part_of_this_replica(tf.shape(images)[0]) as part:
                    means = step(part.of(images), part.of(labels), number, *plain)
                return sum_over_replicas([part.weighted(mean) for mean in means])

            def on_all(*arguments: tf.Tensor) -> tuple[tf.Tensor, ...]:
                sums = strategy.run(on_replica, args=arguments)
                return tuple(strategy.experimental_local_results(value)[0] for value in sums)

            return tf.function(on_all, input_signature=_SIGNATURE)  # type: ignore[no-any-return]

        return lambda images, labels, number, *plain: graph(*plain)(images, labels, number)

    def any(self, flag: bool) -> bool:
        """Whether any worker raises the flag; every worker must ask."""
        if self._chosen is None or self._chosen.workers == 1:
            return flag
        return bool(self._any(tf.constant(float(flag))) > 0)

    def _any_of(self, flag: tf.Tensor) -> tf.Tensor:
        assert self._strategy is not None
        total = self._strategy.run(lambda: sum_over_replicas(tf.identity(flag)))
        return self._strategy.experimental_local_results(total)[0]


def _open(strategy: Strategy) -> tf.distribute.Strategy:
    return _workers(strategy) if strategy.name == "multi-worker" else _mirrored(_devices(strategy.replicas))


# One of each in a process: TensorFlow joins a cluster once, and the reductions of two mirrored strategies on the same
# devices take each other's tensors.
@functools.cache
def _workers(strategy: Strategy) -> tf.distribute.Strategy:
    try:
        with _plain_interrupt():
            wait_for_workers(strategy)
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, tf.errors.OpError) as error:  # TensorFlow works already in this process; a port is taken
        reason = getattr(error, "message", str(error))
        raise UsageError(f"strategy multi-worker: cannot join the workers of TF_CONFIG: {reason:.200}") from error


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


def _devices(replicas: int | None) -> tuple[str, ...]:
    """The GPUs, or else the logical devices of the processor, made where they are asked for and not yet there."""
    graphics = tf.config.list_physical_devices("GPU")
    if not graphics and replicas is not None:
        processor = tf.config.list_physical_devices("CPU")[0]
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already: it keeps the devices of its start
            tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * replicas)
    names = tuple(device.name for device in tf.config.list_logical_devices("GPU" if graphics else "CPU"))
    if replicas is not None and replicas > len(names):
        kind = "GPUs" if graphics else "devices of the processor that TensorFlow was started with in this process"
        raise UsageError(f"replicas {replicas}: expected at most the {len(names)} {kind}")
    return names[:replicas]


@contextlib.contextmanager
def _plain_interrupt() -> Iterator[None]:
    """Let Ctrl-C end the process, which waits for the other workers in code that runs none of Python's handlers.

    And take SIGTERM back from TensorFlow, which from here on would keep it to itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _alike_everywhere(next_creator: Callable[..., tf.Variable], **options: Any) -> tf.Variable:
    """Make a variable that the replicas may assign: all bring the same value, and the first one's counts.

    Keras leaves this open for its layers' weights, which TensorFlow then refuses to assign.
    """
    if options.get("aggregation") in (None, tf.VariableAggregation.NONE):
        options["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return next_creator(**options)
