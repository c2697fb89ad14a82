"""The price of private mechanisms: epsilon at a given delta, by Google's ``dp-accounting``.

The accountant of record composes privacy loss distributions (PLD; Koskela, Jälkö & Honkela 2020; Doroshenko et al.
2022), rounding every step pessimistically; Rényi accounting (RDP; Mironov 2017; Mironov, Talwar & Zhang 2019) stands
beside it as a check. Both assume what the mechanisms do: Poisson sampling, and neighbours that differ by one example
added or removed.
"""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from synthgen.errors import PrivacyError

MAX_EPSILON = 50.0  # beyond it a guarantee says nothing, and its loss distribution grows without end
MIN_DELTA, MAX_DELTA = 1e-12, 1e-2
_MAX_LOSS = 100.0  # summed privacy losses that PLD follows, at 10,000 points a unit
_MAX_TRIALS = 100
_RELATIVE_TOLERANCE = 1e-3  # of the budget, left unspent by a calibration


class Priced(Protocol):
    """What the accountant must know of a mechanism: see ``synthgen.privacy.ledger.Mechanism``."""

    @property
    def noise_multiplier(self) -> float: ...
    @property
    def sampling_probability(self) -> float: ...
    @property
    def steps(self) -> int: ...


@dataclass(frozen=True)
class Budget:
    """The largest privacy loss a run may cause.

    Attributes:
        epsilon: above 0, at most 50.
        delta: the probability, 1e-12 to 0.01, with which epsilon may be exceeded; keep it below 1 / data set size.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= MAX_EPSILON:
            raise PrivacyError(f"epsilon {self.epsilon}; expected a number above 0, at most {MAX_EPSILON:g}")
        _check_delta(self.delta)


def epsilon_of(mechanisms: Sequence[Priced], delta: float, accountant: str = "pld") -> float:
    """The epsilon, at ``delta``, of running all ``mechanisms`` on the same data: an upper bound.

    Args:
        mechanisms: Gaussian mechanisms; an empty sequence costs nothing.
        delta: 1e-12 to 0.01.
        accountant: ``pld`` or ``rdp``. Where RDP already says more than 50, or the loss distributions would be vast
            (dozens of mechanisms, or hardly any noise), RDP's bound is returned for PLD's, so that no ledger takes
            more than seconds.

    Raises:
        PrivacyError: delta or the accountant's name is out of range.
    """
    _check_delta(delta)
    if accountant not in ("pld", "rdp"):
        raise PrivacyError(f"accountant '{accountant}'; expected pld or rdp")
    if not mechanisms:
        return 0.0
    bound = _epsilon_rdp(mechanisms, delta)
    vast = sum(_largest_loss(mechanism) for mechanism in mechanisms) > _MAX_LOSS
    if accountant == "rdp" or bound > MAX_EPSILON or vast:
        return bound
    return _epsilon_pld(mechanisms, delta)


def calibrated(mechanisms: Callable[[float], Sequence[Priced]], budget: Budget) -> float:
    """The smallest noise scale s with ``epsilon_of(mechanisms(s), budget.delta) <= budget.epsilon``.

    At most 0.1 % of the budget's epsilon is left unspent.

    Args:
        mechanisms: what would be run at noise scale s; its epsilon must fall, continuously, as s grows.
        budget: what may be spent.

    Raises:
        PrivacyError: no scale keeps within the budget.
    """

    def price(scale: float, accountant: str) -> float:
        return epsilon_of(mechanisms(scale), budget.delta, accountant)

    nearly = _solve(lambda scale: price(scale, "rdp"), budget.epsilon, start=1.0, tolerance=0.02)  # RDP is cheap
    return _solve(lambda scale: price(scale, "pld"), budget.epsilon, start=nearly, tolerance=_RELATIVE_TOLERANCE)


def accountant_version() -> str:
    """The installed version of ``dp-accounting``."""
    import importlib.metadata

    return importlib.metadata.version("dp-accounting")


def _solve(price: Callable[[float], float], epsilon: float, *, start: float, tolerance: float) -> float:
    """A scale whose price lies between ``epsilon`` · (1 - tolerance) and ``epsilon``: interpolation of the logarithms.

    Epsilon is nearly a power of the noise, so a few steps do. What is returned was priced, and fits.
    """
    enough, too_little = math.inf, 0.0
    price_enough, price_too_little = 0.0, math.inf
    scale = start
    for i in range(_MAX_TRIALS):
        found = price(scale)
        if (1 - tolerance) * epsilon <= found <= epsilon:
            return scale
        if found <= epsilon:
            enough, price_enough = scale, found
        else:
            too_little, price_too_little = scale, found
        if not math.isfinite(enough):
            scale = too_little * (1.25 if i == 0 else 2)
        elif not too_little:
            scale = enough / (1.25 if i == 0 else 2)
        elif i % 3 == 2 or price_enough <= 0 or price_too_little > MAX_EPSILON:
            scale = math.sqrt(too_little * enough)
        else:
            aim = epsilon * (1 - tolerance / 2)
            share = math.log(price_too_little / aim) / math.log(price_too_little / price_enough)
            scale = too_little * (enough / too_little) ** share
        if not 1e-12 < scale < 1e12:
            break
    if math.isfinite(enough) and too_little:
        return enough  # a jump in the price: the last scale that fits
    raise PrivacyError(f"no amount of noise brings epsilon to {epsilon:g}; allow another epsilon")


def _epsilon_pld(mechanisms: Sequence[Priced], delta: float) -> float:
    import dp_accounting
    from dp_accounting import pld

    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    with _quiet_accountant():
        for mechanism in mechanisms:
            accountant.compose(_event(mechanism))
        return float(accountant.get_epsilon(delta))


def _largest_loss(mechanism: Priced) -> float:
    """The privacy loss at nine standard deviations: how far the distribution of a mechanism reaches."""
    steps = mechanism.steps if mechanism.sampling_probability == 1 else 1  # sampled: of each step
    mean = steps / (2 * mechanism.noise_multiplier**2)
    return mean + 9 * math.sqrt(2 * mean)


def _epsilon_rdp(mechanisms: Sequence[Priced], delta: float) -> float:
    import dp_accounting
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    with _quiet_accountant():
        for mechanism in mechanisms:
            accountant.compose(_event(mechanism))
        return float(accountant.get_epsilon(delta))


def _event(mechanism: Priced) -> Any:
    import dp_accounting

    event: Any = dp_accounting.GaussianDpEvent(mechanism.noise_multiplier)
    if mechanism.sampling_probability < 1:
        event = dp_accounting.PoissonSampledDpEvent(mechanism.sampling_probability, event)
    return dp_accounting.SelfComposedDpEvent(event, mechanism.steps)


@contextlib.contextmanager
def _quiet_accountant() -> Iterator[None]:
    """Without the warnings of RDP about orders that it leaves out, which only loosens its bound."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_delta(delta: float) -> None:
    if not MIN_DELTA <= delta <= MAX_DELTA:
        raise PrivacyError(f"delta {delta}; expected a number from {MIN_DELTA:g} to {MAX_DELTA:g}")
