"""What the shipped ledgers prove, so that reading them does not import the accountant. A test computes it again.

The key is ``claim_sha256``, so that whatever else has the same ledger and delta has the same numbers.
"""

import functools
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.files import sha256_of_json
from synthgen.privacy.accounting import MAX_EPSILON
from synthgen.privacy.curve import Curve, curve_of
from synthgen.privacy.ledger import Ledger

_PRIVATE = "b9b6cb97a1afd132c6fbe08d5cc457a0270f6587d7281a15e5e50c627f9a0aff"
_PRIVATE_EPS1 = "6988409df0e59e93745386d506f543b2dbed4be914b2ed7cbf39db0db8128cf2"

PINNED_EPSILONS: dict[str, tuple[float, float]] = {  # by PLD and by RDP
    _PRIVATE: (9.994871102108918, 10.752374996695508),
    _PRIVATE_EPS1: (0.9993545473380427, 1.0922841346566874),
}
PINNED_CURVES: dict[str, Curve] = {
    _PRIVATE: Curve(
        epsilons=(13.637666128246423, 11.95586925891959, 9.994871102108918, 7.535808359173306),
        gdp_mu=2.0167694866862966,
        groups=(24.37081797636591, 42.796739424705194),
        true_positive_rate=0.36235981051518107,
    ),
    _PRIVATE_EPS1: Curve(
        epsilons=(1.5024004580218904, 1.2729307911661336, 0.9993545473380427, 0.6422419962748307),
        gdp_mu=0.26832134107794736,
        groups=(2.1534439030003165, 3.4051844581468846),
        true_positive_rate=0.01976377339151445,
    ),
}


def claim_sha256(ledger: Ledger, delta: float) -> str:
    """The key of pinned numbers: SHA-256 over the ledger and delta."""
    claim: dict[str, Any] = {"delta": float(delta), "mechanisms": ledger.to_list()}
    if ledger.selection is not None:
        claim["selection"] = ledger.selection.to_dict()
    return sha256_of_json(claim)


@functools.lru_cache(maxsize=64)
def proven_epsilons(ledger: Ledger, delta: float) -> tuple[float, float]:
    """Epsilon by PLD and by RDP.

    Raises:
        PrivacyError: even RDP proves only an epsilon above 50.
    """
    pinned = PINNED_EPSILONS.get(claim_sha256(ledger, delta))
    if pinned is not None:
        return pinned
    by_rdp = ledger.epsilon(delta, "rdp")
    if by_rdp > MAX_EPSILON:
        raise PrivacyError(f"the ledger proves no epsilon of at most {MAX_EPSILON:g}; that is no guarantee")
    return ledger.epsilon(delta), by_rdp


@functools.lru_cache(maxsize=64)
def proven_curve(ledger: Ledger, delta: float) -> Curve | None:
    """All other numbers, of a ledger that ``proven_epsilons`` accepts; None where RDP prices it."""
    pinned = known_curve(ledger, delta)
    return curve_of(ledger.charges, delta) if pinned is None else pinned


def known_curve(ledger: Ledger, delta: float) -> Curve | None:
    """The curve of a shipped ledger; None for any other."""
    return PINNED_CURVES.get(claim_sha256(ledger, delta))
