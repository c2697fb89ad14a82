"""A replica's part of a batch that several devices share, so that layers compute what one device would."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Part:
    """The rows of a batch that this replica computes: ``start`` to ``stop - 1`` of ``count``, at least one."""

    count: tf.Tensor
    start: tf.Tensor
    stop: tf.Tensor

    def of(self, batch: tf.Tensor) -> tf.Tensor:
        """This replica's rows of a whole batch."""
        return batch[self.start : self.stop]

    def drawn(self, draw: Callable[[tf.Tensor], tf.Tensor], like: tf.Tensor) -> tf.Tensor:
        """Random numbers for this replica's rows: those that one device would draw for them.

        Args:
            draw: a shape → random numbers.
            like: this replica's rows of a batch, or of several batches concatenated (real images, then forged ones).
        """
        batches = tf.shape(like)[0] // (self.stop - self.start)
        row = tf.shape(like)[1:]
        whole = tf.reshape(
            draw(tf.concat([[batches * self.count], row], 0)), tf.concat([[batches, self.count], row], 0)
        )
        return tf.reshape(whole[:, self.start : self.stop], tf.shape(like))

    def weighted(self, mean: tf.Tensor) -> tf.Tensor:
        """What a mean over this replica's rows contributes to the mean over the batch."""
        return mean * (tf.cast(self.stop - self.start, tf.float32) / tf.cast(self.count, tf.float32))


_PART: ContextVar[Part | None] = ContextVar("part", default=None)  # every replica is traced in its own thread


def own_part() -> Part | None:
    """This replica's part of the current step's batch; None where replicas share no batch."""
    return _PART.get()


def own_share(mean: tf.Tensor) -> tf.Tensor:
    """``Part.weighted`` of this replica's part; the mean itself where replicas share no batch."""
    part = own_part()
    return mean if part is None else part.weighted(mean)


def sum_over_replicas(values: Any) -> Any:
    """Tensors summed over all replicas; each replica gets the same sums. Differentiable."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


@contextlib.contextmanager
def part_of_this_replica(count: tf.Tensor) -> Iterator[Part]:
    """While it lasts, ``own_part`` is this replica's part of a batch of ``count`` rows."""
    context = tf.distribute.get_replica_context()
    place, places = context.replica_id_in_sync_group, context.num_replicas_in_sync
    part = Part(count, count * place // places, count * (place + 1) // places)
    token = _PART.set(part)
    try:
        yield part
    finally:
        _PART.reset(token)
