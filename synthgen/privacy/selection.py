"""The price of choosing the best of several private runs, whose number is random (Papernot & Steinke 2022).

For: a choice of settings that is made by results on private data, and so costs privacy itself.
In and out: the mean number of runs and the noise of the score in; the number of runs, or the accountant's event, out.
What may go wrong: a number of runs that somebody learns, or that depends on results; a run that is not counted.

The number of runs K is drawn from a geometric distribution, P(K = k) = γ · (1 - γ)^(k - 1) with γ = 1 / mean. Each run
draws its settings uniformly from candidates and charges the same mechanisms and a score; the one with the best score is
published, and nothing else. If a run is (λ, ε(λ))-RDP, the whole is (λ, ε')-RDP with

    ε' = ε(λ) + 2 · (1 - 1/λ̂) · ε(λ̂) + 2 · log(1/γ) / λ̂ + log(mean) / (λ - 1)        for every λ > 1 and λ̂ ≥ 1

(arXiv:2110.03620, theorem 2 with η = 1). ``docs/privacy.md`` has a table: 3 to 30 runs cost 1.5 to 3.3 times the
epsilon of one. Of the paper's other distributions Poisson has K = 0 at times, and with the library's bound costs more
from ten runs on; the logarithmic one costs up to a quarter less, but makes a single run the most likely number, and
leaves hundreds of runs possible.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from synthgen.errors import PrivacyError

MIN_MEAN, MAX_MEAN = 2, 1_000
_DISTRIBUTION = "geometric"
_KEYS = {"distribution", "mean", "score_noise_multiplier"}


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the published run was chosen.

    Attributes:
        mean: how many runs there are on average, 2 to 1,000.
        score_noise_multiplier: of the Gaussian mechanism by which each run is scored, 0.001 to 1e6.

    Raises:
        PrivacyError: a value is of the wrong type or out of range.
    """

    mean: int
    score_noise_multiplier: float

    def __post_init__(self) -> None:
        if type(self.mean) is not int or not MIN_MEAN <= self.mean <= MAX_MEAN:
            raise PrivacyError(f"mean number of runs {self.mean!r:.80}; expected {MIN_MEAN} to {MAX_MEAN:,}")
        noise = self.score_noise_multiplier
        if type(noise) not in (int, float) or not 1e-3 <= noise <= 1e6:  # also refuses NaN
            raise PrivacyError(f"the score's noise multiplier {noise!r:.80}; expected a number from 0.001 to 1e6")
        object.__setattr__(self, "score_noise_multiplier", float(noise))

    def __str__(self) -> str:
        return (
            f"the best of a random number of runs, {self.mean:,} on average ({_DISTRIBUTION} distribution), by a score "
            f"with noise multiplier {self.score_noise_multiplier:g}; the mechanisms are those of one run"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        noise = self.score_noise_multiplier
        return {"distribution": _DISTRIBUTION, "mean": self.mean, "score_noise_multiplier": noise}

    @classmethod
    def from_dict(cls, document: Any) -> "Selection":
        """Read it back from JSON that may come from anyone.

        Raises:
            PrivacyError: a value is impossible, or the form is another.
        """
        if not isinstance(document, dict) or set(document) != _KEYS or document["distribution"] != _DISTRIBUTION:
            raise PrivacyError(
                f"the selection is no object of {', '.join(sorted(_KEYS))} with a geometric distribution"
            )
        return cls(mean=document["mean"], score_noise_multiplier=document["score_noise_multiplier"])

    def event(self, run: Any) -> Any:
        """The accountant's event of the whole selection, for that of one run without its score."""
        from dp_accounting import dp_event

        scored = dp_event.ComposedDpEvent([run, dp_event.GaussianDpEvent(self.score_noise_multiplier)])
        return dp_event.RepeatAndSelectDpEvent(scored, self.mean, 1)

    def draw_runs(self) -> int:
        """How many runs there will be: a secret, from the operating system's entropy, and exactly geometric."""
        runs = 1
        while secrets.randbelow(self.mean):  # 0, with probability 1 / mean, ends it
            runs += 1
        return runs
