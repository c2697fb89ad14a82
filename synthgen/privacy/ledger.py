"""The ledger: every private mechanism that was run, in plain numbers from which anyone can compute epsilon again.

During a run it lies on disk, and a mechanism is charged *before* its output is used. A run killed between the two has
paid for what it did not use; no run uses what it has not paid for.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.files import exclusive_lock, sha256_of_json, write_json
from synthgen.privacy.accounting import MAX_STEPS, Budget, Mechanism, epsilon_of
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

LEDGER_NAME = "ledger.json"  # in a run's folder
LEDGER_FILES = {LEDGER_NAME, LEDGER_NAME + ".lock"}  # a killed run leaves them; its charges still count
MAX_MECHANISMS = 32
_MAX_FILE_BYTES = 1 << 20  # 1 MiB
_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Ledger:
    """Mechanisms that were run on the same data, in order.

    Raises:
        PrivacyError: more than 32 different mechanisms or more than a million steps.
    """

    mechanisms: tuple[Mechanism, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.mechanisms) > MAX_MECHANISMS:
            raise PrivacyError(f"ledger of {len(self.mechanisms)} mechanisms; expected at most {MAX_MECHANISMS}")
        steps = sum(mechanism.steps for mechanism in self.mechanisms)
        if steps > MAX_STEPS:
            raise PrivacyError(f"ledger of {steps:,} steps; expected at most {MAX_STEPS:,}")

    def __iter__(self) -> Iterator[Mechanism]:
        return iter(self.mechanisms)

    def __len__(self) -> int:
        return len(self.mechanisms)

    def charged(self, mechanism: Mechanism) -> "Ledger":
        """This ledger and one more mechanism; one of the same name and parameters gains its steps instead."""
        mechanisms = list(self.mechanisms)
        for i, known in enumerate(mechanisms):
            if replace(known, steps=1) == replace(mechanism, steps=1):
                mechanisms[i] = replace(known, steps=known.steps + mechanism.steps)
                return Ledger(tuple(mechanisms))
        return Ledger((*mechanisms, mechanism))

    def epsilon(self, delta: float, accountant: str = "pld") -> float:
        """What all mechanisms together cost at ``delta``: see ``epsilon_of``."""
        return epsilon_of(self.mechanisms, delta, accountant)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain JSON-ready values."""
        return [asdict(mechanism) for mechanism in self.mechanisms]

    @classmethod
    def from_list(cls, document: Any) -> "Ledger":
        """Read a ledger back from JSON that may come from anyone.

        Raises:
            PrivacyError: a value is impossible, or the form is another.
        """
        if not isinstance(document, list) or len(document) > MAX_MECHANISMS:
            raise PrivacyError(f"the ledger is no list of at most {MAX_MECHANISMS} mechanisms")
        keys = {field.name for field in fields(Mechanism)}
        if not all(isinstance(entry, dict) and set(entry) == keys for entry in document):
            raise PrivacyError(f"a mechanism of the ledger lacks one of {', '.join(sorted(keys))}, or has others")
        return cls(tuple(Mechanism(**entry) for entry in document))


class OpenLedger:
    """A ledger on disk during a run, within a budget.

    >>> ledger = OpenLedger.open(out / "ledger.json", Budget(1.0, 1e-5))  # doctest: +SKIP
    >>> ledger.charge(mechanism)  # once this returns, the mechanism's output may be used  # doctest: +SKIP
    """

    def __init__(self, path: Path, budget: Budget, ledger: Ledger) -> None:
        self.path, self.budget, self._ledger = path, budget, ledger

    @property
    def ledger(self) -> Ledger:
        """What has been charged so far."""
        return self._ledger

    @classmethod
    def open(cls, path: Path, budget: Budget) -> "OpenLedger":
        """Read the ledger in ``path``, or begin an empty one there.

        Raises:
            PrivacyError: the file is truncated, was edited, or was begun with another budget.
        """
        if not path.exists():
            opened = cls(path, budget, Ledger())
            opened._publish(opened.ledger)
            return opened
        found, ledger = _read(path)
        if found != budget:
            raise PrivacyError(
                f"{path}: begun with epsilon {found.epsilon:g} and delta {found.delta:g}, not {budget.epsilon:g} and "
                f"{budget.delta:g}; go on with the same budget or start in a new folder"
            )
        return cls(path, budget, ledger)

    def charge(self, mechanism: Mechanism) -> None:
        """Write down that ``mechanism`` is run; call this before its output is used for anything.

        When it returns, the charge is on the disk. If it raises, the mechanism must not be run.

        Raises:
            PrivacyError: the budget would be exceeded, or another run has changed the ledger.
        """
        with exclusive_lock(self.path.with_name(self.path.name + ".lock")) as alone:
            if not alone or _read(self.path) != (self.budget, self._ledger):
                raise PrivacyError(f"{self.path}: another run charges to this ledger; wait for it, then --resume")
            charged = self._ledger.charged(mechanism)
            if not self._affords(charged):
                raise PrivacyError(
                    f"budget exhausted: '{mechanism.name}' would raise epsilon above {self.budget.epsilon:g} at delta "
                    f"{self.budget.delta:g}; stop here, or train anew with a larger --epsilon"
                )
            self._publish(charged)
            self._ledger = charged

    def _affords(self, ledger: Ledger) -> bool:
        return any(  # the cheap bound first: where it fits, the other is not needed
            ledger.epsilon(self.budget.delta, accountant) <= self.budget.epsilon for accountant in ("rdp", "pld")
        )

    def _publish(self, ledger: Ledger) -> None:
        body = {"schema_version": _SCHEMA_VERSION, "budget": asdict(self.budget), "mechanisms": ledger.to_list()}
        write_json(self.path, {**body, "sha256": sha256_of_json(body)})


def _read(path: Path) -> tuple[Budget, Ledger]:
    try:
        document = parse_json(read_file(path, _MAX_FILE_BYTES))
        body = {key: document[key] for key in ("schema_version", "budget", "mechanisms")}
        if set(document) != {*body, "sha256"} or document["sha256"] != sha256_of_json(body):
            raise ValueError("its hash is not that of what it holds")
        if type(body["schema_version"]) is not int or body["schema_version"] != _SCHEMA_VERSION:
            raise ValueError(f"schema_version {body['schema_version']!r}; this version reads {_SCHEMA_VERSION}")
        return Budget(**body["budget"]), Ledger.from_list(body["mechanisms"])
    except (OSError, ValueError, KeyError, TypeError, PrivacyError) as error:
        raise PrivacyError(
            f"{path}: not an intact ledger ({error}); what was spent is unknown, so start in a new folder"
        ) from error
