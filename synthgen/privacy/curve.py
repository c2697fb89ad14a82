"""More than one number: what a ledger proves at other deltas, for groups of images, and against an attacker.

Epsilon at one delta is a point of the privacy profile delta(epsilon); the composed privacy loss distribution gives all
of it (Balle, Barthe & Gaboardi 2018; Doroshenko et al. 2022). All numbers here are upper bounds.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.privacy.accounting import Charge, Mechanism, epsilon_of, largest_loss, loss_distribution, quiet_accountant

DELTAS = (1e-9, 1e-7, 1e-5, 1e-3)
GROUPS = (2, 3)
FALSE_POSITIVE_RATE = 0.01
GDP_DELTA = 1e-10  # the probability for which the bound of Gaussian differential privacy does not answer
_GRID = 2_001  # points of the privacy profile
_ROUNDING = 10_000  # claims are rounded up to four decimals
_TOLERANCE = 1e-5  # rounding errors of another machine's transforms
_HIGHEST = 1e6  # of an epsilon that a statement may hold: above this, a number says nothing
_GROUP_POINTS = 5_000  # of the loss of one step: a root is solved for each
_COMPOSED_POINTS = 200_000
_MAX_GROUP_LOSS = 400.0  # beyond it, exp overflows in the library

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a ledger proves besides epsilon at its delta.

    Attributes:
        epsilons: at each of ``DELTAS``.
        gdp_mu: telling two neighbours apart is at least as hard as telling one draw of N(0, 1) from one of N(mu, 1),
            apart from a probability of 1e-10 (Gaussian differential privacy: Dong, Roth & Su 2022, arXiv:1905.02383,
            section 2.2). Exact, without the exception, where nothing is sampled.
        groups: epsilon for 2 and for 3 images at once, all there or none, at the statement's delta; None: not computed.
        true_positive_rate: the largest probability with which any attack finds an image that was trained on, if it
            takes one that was not for one that was with probability 0.01.
    """

    epsilons: tuple[float, ...]
    gdp_mu: float
    groups: tuple[float | None, ...]
    true_positive_rate: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "epsilon_at_delta": {f"{at:g}": value for at, value in zip(DELTAS, self.epsilons, strict=True)},
            "gdp_mu": self.gdp_mu,
            "epsilon_of_group": {str(size): value for size, value in zip(GROUPS, self.groups, strict=True)},
            "true_positive_rate": self.true_positive_rate,
        }

    @classmethod
    def from_dict(cls, document: Any) -> "Curve":
        """Read it back from JSON that may come from anyone.

        Raises:
            ValueError: its form is another, or a value is no number or out of range.
        """
        keys = {"epsilon_at_delta", "gdp_mu", "epsilon_of_group", "true_positive_rate"}
        if not isinstance(document, dict) or set(document) != keys:
            raise ValueError(f"the privacy statement's curve is no object of {', '.join(sorted(keys))}")
        return cls(
            epsilons=tuple(_row(document, "epsilon_at_delta", [f"{at:g}" for at in DELTAS], _HIGHEST)),
            gdp_mu=_number(document["gdp_mu"], "gdp_mu", _HIGHEST),
            groups=tuple(
                None if value is None else _number(value, "epsilon_of_group", _HIGHEST)
                for value in _values(document, "epsilon_of_group", [str(size) for size in GROUPS])
            ),
            true_positive_rate=_number(document["true_positive_rate"], "true_positive_rate", 1.0),
        )

    def rounded_up(self) -> "Curve":
        """The curve as a statement claims it: four decimals."""
        return Curve(
            epsilons=tuple(map(rounded_up, self.epsilons)),
            gdp_mu=rounded_up(self.gdp_mu),
            groups=tuple(None if value is None else rounded_up(value) for value in self.groups),
            true_positive_rate=min(1.0, rounded_up(self.true_positive_rate)),
        )

    def beyond(self, proven: "Curve") -> str | None:
        """What this claims and ``proven`` does not, in a few words; None where nothing."""
        for (name, claim), (_, proof) in zip(self._named(), proven._named(), strict=True):
            if claim is not None and (proof is None or not claim >= proof - _TOLERANCE * (1 + proof)):
                return (
                    f"{name} {claim:g}, but its ledger proves only {'no number' if proof is None else f'{proof:.5g}'}"
                )
        return None

    def facts(self, delta: float) -> list[tuple[str, str]]:
        """A small table: name and value of each line."""
        at = ", ".join(f"{value:g} at {each:g}" for each, value in zip(DELTAS, self.epsilons, strict=True))
        groups = ", ".join(
            f"{'not computed' if value is None else f'{value:g}'} for {size}"
            for size, value in zip(GROUPS, self.groups, strict=True)
        )
        return [
            ("by delta", f"epsilon {at}"),
            ("by group", f"epsilon {groups} images at once, at delta {delta:g}"),
            (
                "gaussian",
                f"mu {self.gdp_mu:g} of Gaussian differential privacy, apart from a probability of {GDP_DELTA:g}",
            ),
            ("an attacker", self.sentence),
        ]

    @property
    def sentence(self) -> str:
        """What an attacker gains at 1 % false positives, in plain language."""
        return gain_in_words(self.true_positive_rate)

    def _named(self) -> list[tuple[str, float | None]]:
        return [
            *((f"epsilon at delta {at:g}", value) for at, value in zip(DELTAS, self.epsilons, strict=True)),
            ("gdp_mu", self.gdp_mu),
            *((f"epsilon for {size} images", value) for size, value in zip(GROUPS, self.groups, strict=True)),
            ("true_positive_rate", self.true_positive_rate),
        ]


def gain_in_words(true_positive_rate: float) -> str:
    """What an attacker gains at 1 % false positives, rounded up, in plain language."""
    return (
        f"No attack that takes {100 * FALSE_POSITIVE_RATE:g} % of the images that were not trained on for images that "
        f"were can find more than {100 * min(1.0, rounded_up(true_positive_rate)):.4g} % of those that were."
    )


def curve_of(charges: Sequence[Charge], delta: float) -> Curve | None:
    """All numbers of a ledger, not rounded; None where RDP prices it (see ``accounting.is_priced_by_rdp``).

    Args:
        charges: what was run on the same images; not empty.
        delta: for the groups.
    """
    if (losses := loss_distribution(tuple(charges))) is None:
        return None
    mechanisms = [each for each in charges if isinstance(each, Mechanism)]  # all: a selection has no distribution
    epsilons, deltas = _profile(losses)
    return Curve(
        epsilons=tuple(float(losses.get_epsilon(at)) for at in DELTAS),
        gdp_mu=_gdp_mu(mechanisms, epsilons, deltas),
        groups=tuple(group_epsilon(mechanisms, size, delta) for size in GROUPS),
        true_positive_rate=_true_positive_rate(epsilons, deltas),
    )


def largest_true_positive_rate(charges: Sequence[Charge], delta: float) -> float:
    """``Curve.true_positive_rate``, not rounded; by epsilon at ``delta`` alone where there is no curve."""
    if (losses := loss_distribution(tuple(charges))) is not None:
        return _true_positive_rate(*_profile(losses))
    epsilon = min(epsilon_of(charges, delta), 700.0)  # beyond, exp would overflow
    return _true_positive_rate(np.array([epsilon]), np.array([delta]))


def group_epsilon(mechanisms: Sequence[Mechanism], size: int, delta: float) -> float | None:
    """Epsilon for ``size`` images at once: all of them there, or an empty record in the place of each.

    Of a group, as many images as a binomial draw says take part in a sampled step, and together they move its sum by at
    most so many times the clip norm: a mixture of Gaussians, which dominates the mechanism (Ganesh 2024,
    arXiv:2401.10294, by the mixtures of Choquette-Choo et al. 2023, arXiv:2310.15526). Without sampling they move it by
    ``size`` times the clip norm.

    Returns:
        None where the loss distribution would be vast.
    """
    import dp_accounting
    from dp_accounting import dp_event, pld

    steps: dict[tuple[float, float], int] = {}
    for each in mechanisms:
        key = (each.sampling_probability, each.noise_multiplier)
        steps[key] = steps.get(key, 0) + each.steps
    sampled = {key: count for key, count in steps.items() if key[0] < 1}
    precision = sum(count / noise**2 for (probability, noise), count in steps.items() if probability == 1)
    span = sum(largest_loss(size / noise) for _, noise in sampled)
    widest = span + largest_loss(size * math.sqrt(precision))
    if widest > _MAX_GROUP_LOSS:
        return None
    spread = largest_loss(size * math.sqrt(sum(count * (q / noise) ** 2 for (q, noise), count in steps.items())))
    interval = max(span / _GROUP_POINTS, (widest + spread) / _COMPOSED_POINTS)  # coarser is larger, never too small
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL, interval)
    with quiet_accountant():
        for (q, noise), count in sampled.items():
            weights = [math.comb(size, i) * q**i * (1 - q) ** (size - i) for i in range(size + 1)]
            event = dp_event.MixtureOfGaussiansDpEvent(noise, list(range(size + 1)), weights)
            accountant.compose(dp_accounting.SelfComposedDpEvent(event, count))
        if precision:
            accountant.compose(dp_accounting.GaussianDpEvent(1 / (size * math.sqrt(precision))))
        epsilon = float(accountant.get_epsilon(delta))
    return epsilon if epsilon <= _HIGHEST else None


def gdp_delta(epsilons: Numbers, mu: float) -> Numbers:
    """The privacy profile of mu-Gaussian differential privacy (Dong, Roth & Su 2022, section 2.3)."""
    from scipy import special  # here, so that reading a well-known statement stays fast

    first = special.ndtr(mu / 2 - epsilons / mu)
    second: Numbers = np.exp(epsilons + special.log_ndtr(-mu / 2 - epsilons / mu))
    return np.asarray(first - second, np.float64)


def _profile(losses: Any) -> tuple[Numbers, Numbers]:
    """Epsilons from 0 up to where delta is ``GDP_DELTA``, and delta at each."""
    highest = max(float(losses.get_epsilon(GDP_DELTA)), 1e-9)
    epsilons = np.linspace(0, highest, _GRID)
    return epsilons, np.asarray(losses.get_delta(epsilons), np.float64)


def _gdp_mu(mechanisms: Sequence[Mechanism], epsilons: Numbers, deltas: Numbers) -> float:
    """The smallest mu whose profile lies above ``deltas``: above each on the whole way to the next (section 2.3).

    Without sampling mu is exact, and with it no larger: Gaussians compose as one (section 3.1).
    """
    enough = math.sqrt(sum(each.steps / each.noise_multiplier**2 for each in mechanisms))
    if all(each.sampling_probability == 1 for each in mechanisms):
        return enough

    def suffices(mu: float) -> bool:
        return bool(np.all(gdp_delta(epsilons[1:], mu) >= deltas[:-1]))

    return _smallest(suffices, enough)


def _smallest(suffices: Callable[[float], bool], enough: float) -> float:
    low, high = 0.0, enough
    for _ in range(60):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return high


def _true_positive_rate(epsilons: Numbers, deltas: Numbers) -> float:
    """By every point of the profile (Kairouz, Oh & Viswanath 2015, theorem 2.1)."""
    found = np.exp(epsilons) * FALSE_POSITIVE_RATE + deltas
    missed = np.exp(-epsilons) * (1 - deltas - FALSE_POSITIVE_RATE)
    return float(min(found.min(), (1 - missed).min(), 1.0))


def _values(document: dict[str, Any], key: str, names: Sequence[str]) -> list[Any]:
    row = document[key]
    if not isinstance(row, dict) or set(row) != set(names):
        raise ValueError(f"the privacy statement's curve has no {key} at {', '.join(names)}")
    return [row[name] for name in names]


def _row(document: dict[str, Any], key: str, names: Sequence[str], high: float) -> list[float]:
    return [_number(value, key, high) for value in _values(document, key, names)]


def _number(value: Any, key: str, high: float) -> float:
    if type(value) not in (int, float) or not 0 <= value <= high:  # also refuses NaN
        raise ValueError(f"the privacy statement's curve has {key} {value!r:.80}; expected a number from 0 to {high:g}")
    return float(value)


def rounded_up(value: float) -> float:
    """To four decimals; what has no more stays as it is."""
    return math.ceil(round(value * _ROUNDING, 6)) / _ROUNDING
