"""A replica's part of a batch that several devices share: what layers must know to compute as one device would."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Part:
    """The rows of a batch that fall to this replica: ``start`` up to ``stop`` of ``count``, at least one."""

    count: tf.Tensor
    start: tf.Tensor
    stop: tf.Tensor

    def of(self, batch: tf.Tensor) -> tf.Tensor:
        """This replica's rows of a whole batch."""
        return batch[self.start : self.stop]

    def drawn(self, draw: Callable[[tf.Tensor], tf.Tensor], like: tf.Tensor) -> tf.Tensor:
        """Random numbers for each of these rows, as one device would draw them for all.

        Args:
            draw: a shape → random numbers.
            like: this replica's rows of a batch, or of several joined one after the other, as real images and forged.
        """
        batches = tf.shape(like)[0] // (self.stop - self.start)
        row = tf.shape(like)[1:]
        whole = tf.reshape(
            draw(tf.concat([[batches * self.count], row], 0)), tf.concat([[batches, self.count], row], 0)
        )
        return tf.reshape(whole[:, self.start : self.stop], tf.shape(like))

    def weighted(self, mean: tf.Tensor) -> tf.Tensor:
        """What a mean over this replica's rows adds to the mean over the batch."""
        return mean * (tf.cast(self.stop - self.start, tf.float32) / tf.cast(self.count, tf.float32))


_PART: ContextVar[Part | None] = ContextVar("part", default=None)  # every replica is traced in a thread of its own


def own_part() -> Part | None:
    """This replica's part of the batch of the step under way; None where a batch is not shared out."""
    return _PART.get()


def own_share(mean: tf.Tensor) -> tf.Tensor:
    """See ``Part.weighted``; the mean itself where a batch is not shared out."""
    part = own_part()
    return mean if part is None else part.weighted(mean)


def sum_over_replicas(values: Any) -> Any:
    """Tensors summed over the replicas of the step under way, alike on all of them; differentiable."""
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


@contextlib.contextmanager
def part_of_this_replica(count: tf.Tensor) -> Iterator[Part]:
    """Within it, ``own_part`` is this replica's part of a batch of ``count`` rows."""
    context = tf.distribute.get_replica_context()
    place, places = context.replica_id_in_sync_group, context.num_replicas_in_sync
    part = Part(count, count * place // places, count * (place + 1) // places)
    token = _PART.set(part)
    try:
        yield part
    finally:
        _PART.reset(token)
