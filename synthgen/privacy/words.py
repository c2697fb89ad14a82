"""The words of a privacy statement. Free text in one could pretend to be a claim, so that any other is refused."""

import math
import re

# What every private run of this package does.
ACCOUNTANT = "privacy loss distributions (PLD), dp-accounting"
ACCOUNTANT_RDP = "Rényi differential privacy (RDP), dp-accounting"  # where the former would be vast, or unknown
UNIT = "one image with its label"
NEIGHBOURING = "zero-out: the image and its label replaced by an empty record"
SAMPLING = "Poisson: at each step every image takes part independently, with the mechanism's sampling_probability"
PUBLIC = (
    "the number of images",
    "equal class counts",
    "the size of an image",
    "the list of classes",
)
NOT_CHARGED = "the choice of hyper-parameters"
NOT_CHARGED_TUNED = "the choice of hyper-parameters but for the selection, and of its candidates"
EXACT_NOISE = "sums of integers, and Gaussian noise rounded to integers: the proof holds for what the program computes"
FLOATING_POINT = (
    "the proof is for real numbers; noise is drawn in double precision as a sum of four draws, "
    "which is not proven to withstand an attack on its low bits"
)
NO_GUARANTEE = (
    "No formal privacy guarantee: the generator saw its training images unprotected, "
    "and what its images reveal about any one of them is not bounded."
)

FIXED = {
    "unit": UNIT,
    "neighbouring": NEIGHBOURING,
    "sampling_assumed": SAMPLING,
    "sampling_run": SAMPLING,
}
_NOISE = {"exact_noise": EXACT_NOISE, "floating_point": FLOATING_POINT}  # one of the two
# As 0.1.0 and 0.2.0 word it. To a mechanism the two are the same, and so are the numbers: see ``privacy.accounting``.
_EARLIER = {"neighbouring": ("add or remove one",)}  # and every accountant was called PLD
_PROOF_KEYS = {*FIXED, "accountant", "not_charged", "epsilon", "delta", "epsilon_rdp", "accountant_version"}
_PROOF_KEYS |= {"mechanisms", "public"}
_RUN_KEYS = {"run", "release_sha256"}  # absent in statements of 0.1.0 and 0.2.0, as is "curve"

# Which images a generator was trained on, as this version and 0.1.0 and 0.2.0 word it.
FASHION, OWN_IMAGES, UNTRAINED = "Fashion-MNIST", "the user's own images", "nothing: untrained"
_ORIGIN = rf"((the public )?{FASHION}|{OWN_IMAGES})"
_COUNT = r"\d{1,3}(,\d{3}){0,2}"
_TRAINED_ON = re.compile(
    rf"(all|the first) {_COUNT} images of the training split of {_ORIGIN}"
    rf"|{_COUNT} images of {_ORIGIN}, (training split|training and test splits)"
    rf"|{UNTRAINED}",
    re.ASCII,
)


def is_origin(trained_on: object) -> bool:
    """Whether a statement's ``trained_on`` is in the words of this package's runs."""
    return isinstance(trained_on, str) and _TRAINED_ON.fullmatch(trained_on) is not None


def origin_of(trained_on: str) -> str | None:
    """``FASHION`` or ``OWN_IMAGES``; None for a generator that has seen no image."""
    if trained_on == UNTRAINED:
        return None
    return OWN_IMAGES if OWN_IMAGES in trained_on else FASHION


def are_proof_keys(found: set[str]) -> bool:
    """Whether these are the keys of a statement's proof, as any version writes them."""
    known = [{*_PROOF_KEYS, noise, *run} for noise in _NOISE for run in (set(), _RUN_KEYS, {*_RUN_KEYS, "selection"})]
    return found - {"curve"} in known


def fixed_words(*, exact_noise: bool, by_rdp: bool, tuned: bool) -> dict[str, str]:
    """What depends on the run only by its noise, the accountant that priced it, and its being tuned: key → words."""
    key = "exact_noise" if exact_noise else "floating_point"
    accountant = ACCOUNTANT_RDP if by_rdp else ACCOUNTANT
    return {
        **FIXED,
        "accountant": accountant,
        "not_charged": NOT_CHARGED_TUNED if tuned else NOT_CHARGED,
        key: _NOISE[key],
    }


def are_earlier_words(key: str, words: object, *, before_runs: bool) -> bool:
    """Whether an earlier version had these words for ``key``; ``before_runs``: in a statement that names no run."""
    return words in _EARLIER.get(key, ()) or (before_runs and key == "accountant" and words == ACCOUNTANT)


def sentences(epsilon: float, delta: float) -> tuple[str, ...]:
    """Every wording of a claim that a statement may carry: today's first, then those of earlier versions."""
    factor = math.exp(epsilon)
    shown = f"{math.ceil(factor * 100) / 100:.2f}" if factor < 100 else f"{math.ceil(factor):,}"
    return (
        f"Differentially private with epsilon {epsilon:g} and delta {delta:g}: whether or not one training image is "
        f"there raises the probability of any outcome to at most {shown} times what it is otherwise, plus {delta:g}.",
        f"Differentially private with epsilon {epsilon:g} and delta {delta:g}: adding or removing one training image "
        f"can raise the probability of any outcome to at most {shown} times what it was, plus {delta:g}.",
        "Differentially private: whatever these images tell, one training image more or less makes it at most "
        f"{shown} times as likely (epsilon {epsilon:g}), apart from a probability of {delta:g} (delta).",
    )


def said(text: str) -> str:
    """A free text of the ledger in quotation marks, which it cannot end."""
    return '"' + text.replace('"', "'") + '"'
