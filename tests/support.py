"""What many tests name: the tiny real sample of Fashion-MNIST, its override, and images written as a set."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from synthgen.export.outputs import LocalOutput
from synthgen.export.plan import Export, Job
from synthgen.export.run import complete
from synthgen.export.shard import write_shard
from synthgen.formats.base import Batch
from synthgen.index import NO_LABELS, LabelRule, ShardPlan
from synthgen.model.checkpoint import Checkpoint
from synthgen.sets.manifest import Manifest

DATA = Path(__file__).parent / "data"
SAMPLE = ["data.official=false"]  # the tiny sample is real, but not the official 70,000


def write_as_set(
    checkpoint: Checkpoint, out: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8] | None
) -> Manifest:
    """Write given images, (N, 28, 28) with labels (N,) or None, as an npz set that names ``checkpoint`` as its origin.

    It did not draw them, and ``verify --regenerate`` will say so.
    """
    rule = NO_LABELS if labels is None else LabelRule.parse("uniform")
    plan = ShardPlan(start=0, count=len(images), shards=1)
    job = Job.of(checkpoint, Export(plan=plan, seed=0, file_format="npz", labels=rule))
    output = LocalOutput(out)
    with output.claim(job.to_dict(), resume=False):
        batches = iter([Batch(start=0, images=images, labels=labels)])
        manifest = complete(job, output, [write_shard(job, plan[0], output, batches)])
    output.release()
    return manifest
