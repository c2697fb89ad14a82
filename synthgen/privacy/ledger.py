"""The ledger: every private mechanism that was run, in plain numbers from which anyone can compute epsilon again.

During a run it lies on disk, and a mechanism is charged *before* its output is used. A run killed between the two has
paid for what it did not use; no run uses what it has not paid for.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from synthgen.errors import PrivacyError
from synthgen.files import NoLocksError, exclusive_lock, sha256_of_json, write_json
from synthgen.privacy.accounting import MAX_STEPS, Budget, Charge, Mechanism, Selected, epsilon_of
from synthgen.privacy.selection import Selection
from synthgen.untrusted.files import read_file
from synthgen.untrusted.text import parse_json

LEDGER_NAME = "ledger.json"  # in a run's folder
LEDGER_FILES = {LEDGER_NAME, LEDGER_NAME + ".lock"}  # a killed run leaves them; its charges still count
MAX_MECHANISMS = 32
_MAX_FILE_BYTES = 1 << 20  # 1 MiB
_SCHEMA_VERSIONS = 1, 2  # of 0.1.0 and 0.2.0, and of a run with an identity
_OWN_KEYS = "run", "releases", "resumed"


@dataclass(frozen=True)
class Ledger:
    """Mechanisms that were run on the same data, in order.

    Attributes:
        mechanisms: of one run.
        selection: where this run was the best of a random number of such runs, how it was chosen.

    Raises:
        PrivacyError: more than 32 different mechanisms or more than a million steps.
    """

    mechanisms: tuple[Mechanism, ...] = field(default=())
    selection: Selection | None = None

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

    @property
    def charges(self) -> tuple[Charge, ...]:
        """What is priced: the mechanisms, or the selection among runs of them."""
        if self.selection is None or not self.mechanisms:
            return self.mechanisms
        return (Selected(self.mechanisms, self.selection),)

    def charged(self, mechanism: Mechanism) -> "Ledger":
        """This ledger and one more mechanism; one of the same name and parameters gains its steps instead."""
        mechanisms = list(self.mechanisms)
        for i, known in enumerate(mechanisms):
            if replace(known, steps=1) == replace(mechanism, steps=1):
                mechanisms[i] = replace(known, steps=known.steps + mechanism.steps)
                return replace(self, mechanisms=tuple(mechanisms))
        return replace(self, mechanisms=(*mechanisms, mechanism))

    def covers(self, earlier: "Ledger") -> bool:
        """Whether this may be what became of an earlier ledger: all of it stands here, in its place."""
        pairs = zip(self.mechanisms, earlier.mechanisms, strict=False)
        kept = all(ours.steps >= theirs.steps and replace(ours, steps=theirs.steps) == theirs for ours, theirs in pairs)
        return kept and len(self) >= len(earlier) and self.selection == earlier.selection

    def epsilon(self, delta: float, accountant: str = "pld") -> float:
        """What all of it together costs at ``delta``: see ``epsilon_of``."""
        return epsilon_of(self.charges, delta, accountant)

    def to_list(self) -> list[dict[str, Any]]:
        """The mechanisms as plain JSON-ready values."""
        return [asdict(mechanism) for mechanism in self.mechanisms]

    @classmethod
    def from_list(cls, document: Any, selection: Any = None) -> "Ledger":
        """Read a ledger back from JSON that may come from anyone; ``selection``: as JSON, too, where there is one.

        Raises:
            PrivacyError: a value is impossible, or the form is another.
        """
        if not isinstance(document, list) or len(document) > MAX_MECHANISMS:
            raise PrivacyError(f"the ledger is no list of at most {MAX_MECHANISMS} mechanisms")
        keys = {field.name for field in fields(Mechanism)}
        if not all(isinstance(entry, dict) and set(entry) == keys for entry in document):
            raise PrivacyError(f"a mechanism of the ledger lacks one of {', '.join(sorted(keys))}, or has others")
        chosen = None if selection is None else Selection.from_dict(selection)
        return cls(tuple(Mechanism(**entry) for entry in document), chosen)


@dataclass(frozen=True, kw_only=True)
class LedgerRecord:
    """What a run's ledger file holds.

    Attributes:
        budget: what may be spent.
        run: the random identity of the run, 32 hexadecimal digits; None for a run of 0.1.0 or 0.2.0, to whose ledger
            nothing is charged any more.
        ledger: what has been charged.
        releases: SHA-256 of each thing that was released for good, in order; each stands here before it is published.
        resumed: how often the run was taken up again.
    """

    budget: Budget
    run: str | None
    ledger: Ledger = field(default_factory=Ledger)
    releases: tuple[str, ...] = ()
    resumed: int = 0

    def covers(self, earlier: "LedgerRecord") -> bool:
        """Whether this may be what became of an earlier record: the same run's, with all that it holds."""
        return (
            (self.budget, self.run) == (earlier.budget, earlier.run)
            and self.resumed >= earlier.resumed
            and self.releases[: len(earlier.releases)] == earlier.releases
            and self.ledger.covers(earlier.ledger)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; those of a run without identity are in the form of 0.2.0."""
        spent = {"budget": asdict(self.budget), "mechanisms": self.ledger.to_list()}
        if self.run is None:
            return {"schema_version": _SCHEMA_VERSIONS[0], **spent}
        own: dict[str, Any] = {"run": self.run, "releases": list(self.releases), "resumed": self.resumed}
        if self.ledger.selection is not None:
            own["selection"] = self.ledger.selection.to_dict()
        return {"schema_version": _SCHEMA_VERSIONS[1], **own, **spent}

    @classmethod
    def from_dict(cls, document: Any) -> "LedgerRecord":
        """Read a record back from JSON that may come from anyone.

        Raises:
            PrivacyError: a value is impossible, or the form is another.
        """
        version = document.get("schema_version") if isinstance(document, dict) else None
        if type(version) is not int or version not in _SCHEMA_VERSIONS:
            raise PrivacyError(f"schema_version {version!r:.80}; this version reads 1 and 2")
        keys = {"schema_version", "budget", "mechanisms", *(_OWN_KEYS if version > 1 else ())}
        keys |= set(document) & {"selection"} if version > 1 else set()
        budget = document.get("budget")
        if set(document) != keys or not isinstance(budget, dict) or set(budget) != {"epsilon", "delta"}:
            raise PrivacyError(f"expected the keys {', '.join(sorted(keys))}, and a budget of epsilon and delta")
        run, releases, resumed = document.get("run"), document.get("releases", []), document.get("resumed", 0)
        if not (run is None and version == 1) and not _is_hexadecimal(run, 32):
            raise PrivacyError(f"run {run!r:.80}; expected 32 hexadecimal digits")
        if not isinstance(releases, list) or len(releases) > MAX_MECHANISMS:
            raise PrivacyError(f"the releases are no list of at most {MAX_MECHANISMS}")
        if not all(_is_hexadecimal(sha256, 64) for sha256 in releases):
            raise PrivacyError("a release is named by no 64 hexadecimal digits")
        if type(resumed) is not int or resumed < 0:
            raise PrivacyError(f"resumed {resumed!r:.80}; expected a number from 0")
        if document.get("selection", ...) is None:
            raise PrivacyError("selection None; expected an object, or no such key")
        ledger = Ledger.from_list(document["mechanisms"], document.get("selection"))
        return cls(budget=Budget(**budget), run=run, ledger=ledger, releases=tuple(releases), resumed=resumed)


class OpenLedger:
    """A ledger on disk during a run, within a budget.

    What it cannot see: that the *whole* folder of a run was copied before a look and put back after it. The look would
    then be taken again, with other noise, and charged once. On the machine where it was taken ``spend_log`` sees it.

    >>> ledger = OpenLedger.open(out / "ledger.json", Budget(1.0, 1e-5))  # doctest: +SKIP
    >>> ledger.charge(mechanism)  # once this returns, the mechanism's output may be used  # doctest: +SKIP
    """

    def __init__(self, path: Path, record: LedgerRecord) -> None:
        self.path, self._record = path, record

    @property
    def record(self) -> LedgerRecord:
        """What the file holds."""
        return self._record

    @property
    def ledger(self) -> Ledger:
        """What has been charged so far."""
        return self._record.ledger

    @classmethod
    def open(
        cls, path: Path, budget: Budget, *, selection: Selection | None = None, run: str | None = None
    ) -> "OpenLedger":
        """Read the ledger in ``path``, or begin an empty one there, of a run with an identity of its own.

        Args:
            path: the file.
            budget: what may be spent.
            selection: of a new ledger: how one of several runs is chosen, which the budget pays for, too.
            run: of a new ledger: the identity, where several runs are one to whoever counts; see ``training.tuning``.

        Raises:
            PrivacyError: the file is truncated, was edited, or was begun with another budget; or there are no locks.
        """
        if not path.exists():
            opened = cls(
                path, LedgerRecord(budget=budget, run=run or os.urandom(16).hex(), ledger=Ledger(selection=selection))
            )
            with opened._alone():
                opened._publish(opened.record)
            return opened
        record = read_ledger(path)
        if (found := record.budget) != budget:
            raise PrivacyError(
                f"{path}: begun with epsilon {found.epsilon:g} and delta {found.delta:g}, not {budget.epsilon:g} and "
                f"{budget.delta:g}; go on with the same budget or start in a new folder"
            )
        return cls(path, record)

    def charge(self, mechanism: Mechanism) -> None:
        """Write down that ``mechanism`` is run; call this before its output is used for anything.

        When it returns, the charge is on the disk. If it raises, the mechanism must not be run.

        Raises:
            PrivacyError: the budget would be exceeded, or another run has changed the ledger.
        """
        budget = self._record.budget
        with self._unchanged():
            charged = self.ledger.charged(mechanism)
            if not self._affords(charged):
                raise PrivacyError(
                    f"budget exhausted: '{mechanism.name}' would raise epsilon above {budget.epsilon:g} at delta "
                    f"{budget.delta:g}; stop here, or train anew with a larger --epsilon"
                )
            self._publish(replace(self._record, ledger=charged))

    def name_release(self, sha256: str) -> None:
        """Write down what is about to be released; call this before it gets its final name.

        Raises:
            PrivacyError: another run has changed the ledger.
        """
        with self._unchanged():
            self._publish(replace(self._record, releases=(*self._record.releases, sha256)))

    def count_resumption(self) -> None:
        """Write down that the run is taken up again, so that no saved state is taken up twice.

        Raises:
            PrivacyError: another run has changed the ledger.
        """
        with self._unchanged():
            self._publish(replace(self._record, resumed=self._record.resumed + 1))

    def _affords(self, ledger: Ledger) -> bool:
        budget = self._record.budget
        return any(  # the cheap bound first: where it fits, the other is not needed
            ledger.epsilon(budget.delta, accountant) <= budget.epsilon for accountant in ("rdp", "pld")
        )

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Hold the file, which is as this process left it."""
        with self._alone() as alone:
            if not alone or read_ledger(self.path) != self._record:
                raise PrivacyError(f"{self.path}: another run charges to this ledger; wait for it, then --resume")
            if self._record.run is None:
                raise PrivacyError(f"{self.path}: begun by synthgen 0.2.0 or earlier; start in a new folder")
            yield

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        try:
            with exclusive_lock(self.path.with_name(self.path.name + ".lock"), certain=True) as alone:
                yield alone
        except NoLocksError as error:
            raise PrivacyError(f"{error}, and charge once for two looks; choose --out on a local disk") from error

    def _publish(self, record: LedgerRecord) -> None:
        body = record.to_dict()
        write_json(self.path, {**body, "sha256": sha256_of_json(body)})
        self._record = record


def read_ledger(path: Path) -> LedgerRecord:
    """What the ledger file ``path`` holds.

    Raises:
        PrivacyError: it is missing, truncated, or was edited.
    """
    try:
        document = parse_json(read_file(path, _MAX_FILE_BYTES))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        sha256 = document.pop("sha256", None)
        if sha256 != sha256_of_json(document):
            raise ValueError("its hash is not that of what it holds")
        return LedgerRecord.from_dict(document)
    except (OSError, ValueError, PrivacyError) as error:
        raise PrivacyError(
            f"{path}: not an intact ledger ({error}); what was spent is unknown, so start in a new folder"
        ) from error


def _is_hexadecimal(value: Any, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is not None
