"""The price of private mechanisms: epsilon at a given delta, by Google's ``dp-accounting``.

The accountant of record composes privacy loss distributions (PLD; Koskela, Jälkö & Honkela 2020; Doroshenko et al.
2022), rounding every step pessimistically. Rényi accounting (RDP; Mironov 2017; Mironov, Talwar & Zhang 2019) checks
it. Both assume what the mechanisms do: Poisson sampling, and zero-out adjacency: of two neighbours, one has an empty
record in the place of one example of the other (Kairouz et al. 2021, arXiv:2103.00039, definition 1.1; the accountant's
``REPLACE_SPECIAL``). An empty record adds nothing to a sum, and the number of records is the same in both, so that it
may be public. To a mechanism the two are a data set and the same with one example more or less; hence both directions
have the loss distributions that adding and removing an example have, and epsilon is the larger of the two.

What is priced is the Gaussian mechanism on real numbers. What runs is a function of its output, by the theorem of
``privacy.exact``: every bound here holds for it, and so does every one of ``privacy.curve``.
"""

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.privacy.selection import Selection

MIN_EPSILON, MAX_EPSILON = 0.01, 50.0  # beyond 50 a guarantee says nothing, and its loss distribution is huge
MIN_DELTA, MAX_DELTA = 1e-12, 1e-3
MAX_STEPS = 1_000_000  # of all mechanisms together: what can be priced in seconds
_MAX_LOSS = 100.0  # summed privacy losses that PLD follows, at 10,000 points a unit
_MAX_TRIALS = 100
_RELATIVE_TOLERANCE = 1e-3  # of the budget, left unspent by a calibration
_MAX_TEXT = 300


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One Gaussian mechanism as it was run.

    Attributes:
        name: e.g. ``teacher``, ``class means``, ``discriminator``.
        releases: what its output is, in one plain line.
        noise_multiplier: standard deviation of the noise / L2 sensitivity; 0.001 to 1e6.
        l2_sensitivity: how far one example can move the sum, against an empty record: the clip norm; 1e-12 to 1e12.
        sampling_probability: of Poisson sampling, 1e-6 to 1; 1: every example takes part.
        steps: how often it was run.

    Raises:
        PrivacyError: a value is of the wrong type or out of range.
    """

    name: str
    releases: str
    noise_multiplier: float
    l2_sensitivity: float
    sampling_probability: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        for key in ("name", "releases"):
            text = getattr(self, key)
            if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _MAX_TEXT:
                raise PrivacyError(f"mechanism's {key}: expected one printable line of at most {_MAX_TEXT} characters")
        limits = {"noise_multiplier": (1e-3, 1e6), "l2_sensitivity": (1e-12, 1e12), "sampling_probability": (1e-6, 1.0)}
        for key, (low, high) in limits.items():
            value = _number(f"mechanism '{self.name}': {key}", getattr(self, key), low, high)
            object.__setattr__(self, key, value)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= MAX_STEPS:
            raise PrivacyError(f"mechanism '{self.name}': steps {self.steps!r:.80}; expected 1 to {MAX_STEPS:,}")


@dataclass(frozen=True)
class Selected:
    """The best of a random number of runs, each of which charges all ``mechanisms`` and the selection's score."""

    mechanisms: tuple[Mechanism, ...]
    selection: Selection


Charge = Mechanism | Selected


@dataclass(frozen=True)
class Budget:
    """The largest privacy loss that a run may cause: all its looks at the real images together.

    Attributes:
        epsilon: 0.01 to 50.
        delta: 1e-12 to 0.001, the probability that the guarantee adds to the factor exp(epsilon); keep it below
            1 / data set size.

    Raises:
        PrivacyError: a value is no number or out of range.
    """

    epsilon: float = dataclasses.field(metadata={"low": MIN_EPSILON, "high": MAX_EPSILON})
    delta: float = dataclasses.field(default=1e-5, metadata={"low": MIN_DELTA, "high": MAX_DELTA})

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _number(field.name, getattr(self, field.name), field.metadata["low"], field.metadata["high"])
            object.__setattr__(self, field.name, value)


def epsilon_of(mechanisms: Sequence[Charge], delta: float, accountant: str = "pld") -> float:
    """The epsilon, at ``delta``, of running all ``mechanisms`` on the same data: an upper bound.

    Args:
        mechanisms: Gaussian mechanisms, and selections of the best of several runs; an empty sequence costs nothing.
        delta: 1e-12 to 0.001.
        accountant: ``pld`` or ``rdp``. RDP's bound is returned for PLD's where it is above 50 or where the loss
            distributions would be vast (dozens of mechanisms, or hardly any noise): no ledger takes more than seconds.
            It is also the only one for a selection.

    Raises:
        PrivacyError: delta or the accountant's name is out of range.
    """
    _number("delta", delta, MIN_DELTA, MAX_DELTA)
    if accountant not in ("pld", "rdp"):
        raise PrivacyError(f"accountant '{accountant}'; expected pld or rdp")
    if not mechanisms:
        return 0.0
    bound = _epsilon_rdp(mechanisms, delta)
    if accountant == "rdp" or bound > MAX_EPSILON or is_priced_by_rdp(mechanisms):
        return bound
    return _epsilon_pld(mechanisms, delta)


def merged(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The same charges with equal mechanisms as one of more steps, which has the same price and is priced sooner.

    So many equal runs keep a loss distribution, and a smaller epsilon than RDP's (``is_priced_by_rdp``).
    """
    found: dict[Mechanism, int] = {}  # with how many steps; a selection stays as it is
    kept: list[Charge] = []
    for charge in charges:
        if isinstance(charge, Selected):
            kept.append(charge)
            continue
        one = dataclasses.replace(charge, steps=1)
        if (steps := found.get(one, 0) + charge.steps) > MAX_STEPS:
            kept.append(charge)
        else:
            found[one] = steps
    return *(dataclasses.replace(one, steps=steps) for one, steps in found.items()), *kept


def calibrated(mechanisms: Callable[[float], Sequence[Charge]], budget: Budget) -> float:
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
    """A scale whose price lies between ``epsilon`` · (1 - tolerance) and ``epsilon``.

    Interpolates between logarithms: epsilon is nearly a power of the noise, so that a few steps are enough. The scale
    returned was itself priced.
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


@functools.lru_cache(maxsize=2)  # megabytes each; one serves epsilon at every delta, and the whole curve
def loss_distribution(mechanisms: tuple[Charge, ...]) -> Any | None:
    """The accountant of ``dp-accounting`` that has composed all ``mechanisms``; None where RDP prices them."""
    import dp_accounting
    from dp_accounting import pld

    if is_priced_by_rdp(mechanisms):
        return None
    return _composed(pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL), mechanisms)


def is_priced_by_rdp(charges: Sequence[Charge]) -> bool:
    """Whether RDP's bound is the price, and is called so.

    Loss distributions of dozens of mechanisms, or of hardly any noise, would take more than seconds; and for a
    selection ``dp-accounting`` has none. (Koskela, Redberg & Wang 2024, arXiv:2402.06701, bound its privacy profile.)
    """
    mechanisms = [each for each in charges if isinstance(each, Mechanism)]
    if len(mechanisms) < len(charges):
        return True
    steps = [each.steps if each.sampling_probability == 1 else 1 for each in mechanisms]  # where sampled: a single step
    signals = [math.sqrt(count) / each.noise_multiplier for count, each in zip(steps, mechanisms, strict=True)]
    return sum(map(largest_loss, signals)) > _MAX_LOSS


def largest_loss(signal: float) -> float:
    """The privacy loss of a Gaussian mechanism at nine standard deviations: how far its loss distribution reaches.

    Args:
        signal: sensitivity / standard deviation of the noise.
    """
    return signal**2 / 2 + 9 * signal


@contextlib.contextmanager
def quiet_accountant() -> Iterator[None]:
    """Silence the library's warnings, as RDP's about orders that it leaves out: that only loosens its bound."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _epsilon_pld(mechanisms: Sequence[Charge], delta: float) -> float:
    losses = loss_distribution(tuple(mechanisms))
    return math.inf if losses is None else float(losses.get_epsilon(delta))


def _epsilon_rdp(mechanisms: Sequence[Charge], delta: float) -> float:
    import dp_accounting
    from dp_accounting import rdp

    relation = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    with quiet_accountant():
        return float(_composed(rdp.RdpAccountant(neighboring_relation=relation), mechanisms).get_epsilon(delta))


def _composed(accountant: Any, mechanisms: Sequence[Charge]) -> Any:
    """One of the library's accountants, with all mechanisms."""
    with quiet_accountant():
        for mechanism in mechanisms:
            accountant.compose(_event(mechanism))
    return accountant


def _event(charge: Charge) -> Any:
    """A mechanism with all its steps, or a whole selection, as the library has it."""
    import dp_accounting

    if isinstance(charge, Selected):
        run = dp_accounting.ComposedDpEvent([_event(mechanism) for mechanism in charge.mechanisms])
        return charge.selection.event(run)
    event: Any = dp_accounting.GaussianDpEvent(charge.noise_multiplier)
    if charge.sampling_probability < 1:
        event = dp_accounting.PoissonSampledDpEvent(charge.sampling_probability, event)
    return dp_accounting.SelfComposedDpEvent(event, charge.steps)


def _number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # also refuses NaN
        raise PrivacyError(f"{name} = {value!r:.80}: expected a number from {low} to {high}")
    return float(value)  # 1 and 1.0 are one value, and one hash
