"""The one-run audit of the first private look (``training.matching.looks``): canaries are searched in its releases.

The attacker sees what the accountant grants an adversary: every noisy step of the teacher, the noisy sums, and all
images but the secret inclusions. In the sums a canary's class is the one that the teacher gives it, as for every image.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.audit.canaries import (
    Canaries,
    Evidence,
    Scores,
    class_sum_evidence,
    linear_softmax_background,
    linear_softmax_step_evidence,
)
from synthgen.privacy.mechanisms import clip_rows
from synthgen.subject import Images, Labels
from synthgen.training.matching.features import embedding_rows, scattering_rows
from synthgen.training.matching.looks import LookPlan, embedding_sums, look_privately
from synthgen.training.matching.release import Release
from synthgen.workers import StageProgress

Step = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # parameters before it, and its noisy gradient sum


@dataclass(frozen=True, kw_only=True)
class LookAudit:
    """The first private look with canaries among its images.

    Attributes:
        images, labels: the data, uint8, shapes (N, 28, 28) and (N,).
        planted: the canaries.
        plan: the look's two mechanisms, as a training runs them; nothing is charged, because nothing is released.
        progress: called as the look goes on.
        watched_steps: how many of the teacher's steps are used, evenly spread; each costs a pass over all images.
    """

    images: Images
    labels: Labels
    planted: Canaries
    plan: LookPlan
    progress: StageProgress = lambda stage, done, of: None
    watched_steps: int = 20

    @property
    def canaries(self) -> int:
        """How many canaries there are."""
        return len(self.planted)

    def run(self, included: npt.NDArray[np.bool_]) -> tuple[Release, list[Step]]:
        """Look once at the images and the canaries that are included."""
        every = max(1, self.plan.teacher.steps // self.watched_steps)
        steps: list[Step] = []

        def watch(step: int, parameters: npt.NDArray[np.float64], gradient: npt.NDArray[np.float64]) -> None:
            if step % every == 0:
                steps.append((parameters.copy(), gradient.copy()))

        images = np.concatenate([self.images, self.planted.images[included]])
        labels = np.concatenate([self.labels, self.planted.labels[included]])
        release = look_privately(images, labels, self.plan, lambda mechanism: None, self.progress, watch=watch)
        return release, steps

    def scores(self, output: tuple[Release, list[Step]]) -> Scores:
        """How likely the release and the watched steps make each canary's inclusion, float64, shape (m,)."""
        release, steps = output
        return (self._of_sums(release).fitted() + self._of_teacher(steps).fitted()).scores()

    def _of_sums(self, release: Release) -> Evidence:
        sums = release.means.astype(np.float64) * release.counts[:, None]
        real = np.concatenate([release.teacher.predict(scattering_rows(self.images[s])) for s in self._batches()])
        background = embedding_sums(embedding_rows, self.images, real, self.plan.classes)
        contributions = clip_rows(embedding_rows(self.planted.images), 1.0)
        taken = release.teacher.predict(scattering_rows(self.planted.images))
        noise = self.plan.embedding.noise_multiplier * self.plan.embedding.l2_sensitivity
        return class_sum_evidence(sums - background, contributions, taken, noise)

    def _of_teacher(self, steps: list[Step]) -> Evidence:
        mechanism = self.plan.teacher
        features = np.concatenate([scattering_rows(self.images[s]).astype(np.float16) for s in self._batches()])
        canaries = scattering_rows(self.planted.images)
        evidence = Evidence(np.zeros(self.canaries), np.zeros((self.canaries, self.canaries)))
        for done, (parameters, gradient) in enumerate(steps, 1):
            weights, bias = parameters[:-1].astype(np.float32), parameters[-1].astype(np.float32)
            clip, q = mechanism.l2_sensitivity, mechanism.sampling_probability
            background = linear_softmax_background(
                weights, bias, features, self.labels, l2_clip_norm=clip, sampling_probability=q
            )
            evidence += linear_softmax_step_evidence(
                weights,
                bias,
                gradient[:-1] - background[0],
                gradient[-1] - background[1],
                canaries,
                self.planted.labels,
                l2_clip_norm=clip,
                noise=mechanism.noise_multiplier * clip,
                sampling_probability=q,
            )
            self.progress("reading the teacher's steps", done, len(steps))
        return evidence

    def _batches(self) -> list[slice]:
        return [slice(first, first + 1_000) for first in range(0, len(self.images), 1_000)]
