"""What every format shares: a run of consecutive images."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Consecutive images of a set.

    Attributes:
        start: index of the first image.
        images: uint8, shape (n, 28, 28).
        labels: uint8, shape (n,); None for an unlabelled set.
    """

    start: int
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(self.images)
