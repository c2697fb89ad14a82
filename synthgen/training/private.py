"""What private runs have in common: what is written, and in which order, so that no kill makes a claim smaller.

A look goes through these steps. After each of them the folder holds at least what was spent:

1. the charge, in the ledger;
2. the same charge in the spend log, which lies outside the folder (``privacy.spend_log``);
3. the state, which holds the whole ledger: put back, an older ledger no longer covers it, and is refused;
4. the look, in memory alone;
5. where it releases something for good, that in a temporary file; its SHA-256, in the ledger; then its final name;
6. the state again, then the checkpoint, whose statement is of the whole ledger.

Killed before 6, the folder has a checkpoint of the time before the look, beside a ledger that holds more. Whoever loads
it sees the larger epsilon, and no set is exported from it (``model.checkpoint``).

What nothing in the folder can tell: whether the whole of it was copied and put back. Only the spend log can.

A private run keeps no times. How long a step takes depends on how many images were sampled for it.
"""

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthgen.errors import PrivacyError, SynthgenWarning
from synthgen.model.recipe import PrivateAdversarialRecipe, StatisticsRecipe
from synthgen.privacy.accounting import Budget, Mechanism
from synthgen.privacy.ledger import LEDGER_NAME, LedgerRecord, OpenLedger
from synthgen.privacy.selection import Selection
from synthgen.privacy.spend_log import SpendLog
from synthgen.privacy.statement import PUBLIC, PrivacyStatement, differential_privacy
from synthgen.real_images import RealImages
from synthgen.training.folder import expect_same_run
from synthgen.training.images import describe_private_images
from synthgen.training.run import Plan, Run

if TYPE_CHECKING:
    from synthgen.training.game import Learner


@dataclass(frozen=True, kw_only=True)
class PrivatePlan(Plan):
    """A run within a budget.

    Attributes:
        data: the real images, whose content is private; None where all looks are over.
        images: how many real images there are, which is public.
        spend_log: whether charges are noted outside the folder, too; see ``privacy.spend_log``.
        selection: where the run is one of several of which the best is kept: see ``training.tuning``.
        tuning: the identity that these runs share; None for a run by itself.
    """

    recipe: PrivateAdversarialRecipe | StatisticsRecipe
    data: RealImages | None
    images: int
    spend_log: bool = True
    selection: Selection | None = None
    tuning: str | None = None

    @property
    def total_steps(self) -> int:
        return self.recipe.training.steps

    @property
    def summary_every(self) -> int:
        return self.recipe.training.sample_every_steps

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "images": self.images}

    def describe_data(self) -> dict[str, Any]:
        return {"images": self.images}

    @property
    @abstractmethod
    def mechanisms(self) -> tuple[Mechanism, ...]:
        """All that the run charges, if it comes to its end."""

    @property
    def trained_on(self) -> str:
        """Which images the run protects, in the words of its privacy statement."""
        return describe_private_images(self.recipe, self.images)


WITHOUT_COUNTS = tuple(fact for fact in PUBLIC if fact != "equal class counts")


def expect_small_delta(budget: Budget, images: int) -> None:
    """Raise PrivacyError unless delta is below 1 / ``images``: else to publish one image at random would satisfy it."""
    if budget.delta * images >= 1:
        raise PrivacyError(
            f"delta {budget.delta:g} for {images:,} images: expected less than 1 / {images:,} = {1 / images:.2g}, for "
            "a larger one lets a whole image out; choose a smaller --delta"
        )


class Account:
    """The ledger of a run in its folder, and its lines in the spend log.

    Args:
        plan: the run's.
        out: its folder, held alone.
        header: of the state of the run that is resumed; None for a new one.

    Raises:
        PrivacyError: the ledger is spoilt, of another budget or run, or an older one than the state knows.
    """

    def __init__(self, plan: PrivatePlan, out: Path, header: dict[str, Any] | None) -> None:
        self._out = out
        self._ledger = OpenLedger.open(
            out / LEDGER_NAME, plan.recipe.privacy, selection=plan.selection, run=plan.tuning
        )
        if self.record.ledger.selection != plan.selection or plan.tuning not in (None, self.record.run):
            raise PrivacyError(
                f"{out}: {LEDGER_NAME} is of a run that is chosen among others, or is not; start in a new folder"
            )
        self._log = None if plan.data is None or not plan.spend_log else SpendLog(plan.data.sha256)
        self.is_logged = self._log is not None and (header is None or header["spend_log"] is True)
        self.was_resumed_since = False  # after the state was saved
        if header is None:
            self._warn_of_others(plan.recipe.privacy.delta)
            return
        if plan.data is None and self.record.run is None:
            return  # of 0.2.0: all looks are over
        known = LedgerRecord.from_dict(header["ledger"])
        if not self.record.covers(known):
            raise PrivacyError(f"{out}: {LEDGER_NAME} is not this run's, or an older one; start anew in another --out")
        self._expect_all_logged()
        self.was_resumed_since = self.record.resumed > known.resumed

    @classmethod
    def resumed(cls, plan: PrivatePlan, out: Path) -> tuple["Account", dict[str, Any]]:
        """The account of the run in ``out``, and the header of its state; also raises UsageError for another run."""
        OpenLedger.open(out / LEDGER_NAME, plan.recipe.privacy)  # its words come first
        header = expect_same_run(out, plan.identity())
        return cls(plan, out, header), header

    @property
    def record(self) -> LedgerRecord:
        """What the ledger holds."""
        return self._ledger.record

    def charge(self, mechanism: Mechanism) -> None:
        """Charge a mechanism; the state must be saved before its output is used."""
        self._ledger.charge(mechanism)
        if self._log is not None and self.record.run is not None:
            try:
                self._log.add(self.record.run, mechanism, self._out, self.record.ledger.selection)
            except OSError as error:
                self._unlogged(error)

    def name_release(self, sha256: str) -> None:
        """See ``OpenLedger.name_release``."""
        self._ledger.name_release(sha256)

    def count_resumption(self) -> None:
        """See ``OpenLedger.count_resumption``; the state must be saved then."""
        if self.record.run is not None:
            self._ledger.count_resumption()

    def header(self) -> dict[str, Any]:
        """What every state says of it: put back, an older ledger is noticed."""
        return {"ledger": self.record.to_dict(), "spend_log": self.is_logged}

    def _warn_of_others(self, delta: float) -> None:
        try:
            spent = self._log.spent_by_others(self.record.run, delta) if self._log else None
        except OSError as error:
            self._unlogged(error)
            return
        if spent is not None:
            warnings.warn(str(spent), SynthgenWarning, stacklevel=2)

    def _expect_all_logged(self) -> None:
        try:
            if self._log is not None:
                self._log.expect_all_charges_in(self.record, self._out / LEDGER_NAME)
        except OSError as error:
            self._unlogged(error)

    def _unlogged(self, error: OSError) -> None:
        """Go on without the log, which is a help and no part of the proof."""
        self._log, self.is_logged = None, False
        reason = error.strerror or str(error)
        warnings.warn(
            f"the spend log cannot be kept ({reason}): whether these images were charged before is unknown; set "
            "XDG_STATE_HOME to a folder that can be written, or give --no-spend-log",
            SynthgenWarning,
            stacklevel=2,
        )


class PrivateRun(Run):
    """A run that charges for its looks."""

    plan: PrivatePlan

    def __init__(self, plan: PrivatePlan, out: Path, learner: "Learner", account: Account) -> None:
        super().__init__(plan, out, learner)
        self.account = account

    @property
    def public(self) -> tuple[str, ...]:
        """See ``PrivacyProof``. That classes are equally frequent is known of Fashion-MNIST alone."""
        return PUBLIC if self.plan.recipe.data.official else WITHOUT_COUNTS

    @property
    @abstractmethod
    def exact_noise(self) -> bool:
        """Whether every mechanism so far was on integers (``privacy.exact``); no run before 0.3.0 was."""

    @property
    @abstractmethod
    def release_sha256(self) -> str | None:
        """Of what was released for good, and is trained on."""

    def charge(self, mechanism: Mechanism) -> None:
        """Charge a mechanism and save the state; then it may be run."""
        self.account.charge(mechanism)
        self.save_state()

    def save_all(self) -> None:
        """Save the state and, where anything was charged, a checkpoint that claims no less."""
        self.save_state()
        if len(self.account.record.ledger):
            self.save_checkpoint()

    def save_stopped(self) -> None:
        super().save_stopped()
        if len(self.account.record.ledger):
            self.save_checkpoint()

    def header(self, *, stopping: bool) -> dict[str, Any]:
        return {**super().header(stopping=stopping), **self.account.header(), "seconds": 0.0}

    def training_record(self) -> dict[str, Any]:
        """Without times, and with whether all charges stand in the spend log."""
        record = super().training_record()
        del record["seconds"]
        return record if self.plan.data is None else {**record, "spend_log": self.account.is_logged}

    def statement(self) -> PrivacyStatement:
        record, plan = self.account.record, self.plan
        return differential_privacy(
            record.ledger,
            plan.recipe.privacy.delta,
            plan.trained_on,
            self.public,
            exact_noise=self.exact_noise,
            run=record.run,
            release_sha256=None if record.run is None else self.release_sha256,
        )
