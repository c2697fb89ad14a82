"""Whose claim a privacy statement is: checkpoints that came with synthgen are known by their hash, never by a name.

A copy under the name ``private`` is not the built-in one, and the weights of a built-in one carry no other claim.
"""

from typing import NamedTuple

from synthgen.model.recipe import PrivateAdversarialRecipe, Recipe, StatisticsRecipe
from synthgen.privacy.statement import PrivacyStatement, claim_sha256

INTEGERS, FLOAT32 = "integers", "float32"  # the arithmetic of a checkpoint: exact, or that of synthgen 0.1 and 0.2
_PRIVATE_METHODS = (PrivateAdversarialRecipe, StatisticsRecipe)  # all others protect nothing
_ROUNDING_UP = 1e-4  # a claimed epsilon is rounded up by less


class BuiltIn(NamedTuple):
    """What is known of a checkpoint that came with synthgen.

    Attributes:
        title: its name, and the release it came with if this version has another.
        recipe_sha256: of its recipe as this version writes it.
        trained_on: of its privacy statement.
        claim_sha256: of its ledger and delta; None where nothing is guaranteed.
        arithmetic: ``INTEGERS`` or ``FLOAT32``.
    """

    title: str
    recipe_sha256: str
    trained_on: str
    claim_sha256: str | None = None
    arithmetic: str = INTEGERS


BUILT_IN = {  # by the checkpoint's SHA-256
    "d39aca8336c3fac8f9cbc94009790cfc6231bf282f668818137c8f604c690db6": BuiltIn(
        "private",
        "64d011d6472ed83d3dc108735c203f32a5b729cb70f224dcdfae26eb337b517f",
        "all 60,000 images of the training split of Fashion-MNIST",
        "b9b6cb97a1afd132c6fbe08d5cc457a0270f6587d7281a15e5e50c627f9a0aff",
    ),
    "123e76e37937ecbcbb7e87fa9cffac9cc580d1ab46cf9aacf864d12a04b54429": BuiltIn(
        "private-eps1",
        "febe46f9f1d8bccc43f3223106eb89b92200d08d21617a55e52c38087f1450c5",
        "60,000 images of Fashion-MNIST, training split",
        "6988409df0e59e93745386d506f543b2dbed4be914b2ed7cbf39db0db8128cf2",
    ),
    "c5807fb544cc0d4c8e4f7a007ce9819ec8a01d32e1a72e67c8d4908d46dcd8df": BuiltIn(
        "conditional",
        "74fe8c92a0714069e900638f415a748dfa151fd030d519416c8973732ef94fb0",
        "60,000 images of the public Fashion-MNIST, training split",
    ),
    "1c1aba5361e10052cbe8660c3ee58d250ed99ce406ff1fd5092c6d2e88b54901": BuiltIn(
        "private of 0.2.0",
        "64d011d6472ed83d3dc108735c203f32a5b729cb70f224dcdfae26eb337b517f",
        "all 60,000 images of the training split of Fashion-MNIST",
        "b9b6cb97a1afd132c6fbe08d5cc457a0270f6587d7281a15e5e50c627f9a0aff",
        arithmetic=FLOAT32,
    ),
    "644198d3b7ec39b5d028e8ef658c2861596d17e93529b111a55fb896f6ca8a36": BuiltIn(
        "private-eps1 of 0.2.0",
        "febe46f9f1d8bccc43f3223106eb89b92200d08d21617a55e52c38087f1450c5",
        "60,000 images of Fashion-MNIST, training split",
        "6988409df0e59e93745386d506f543b2dbed4be914b2ed7cbf39db0db8128cf2",
        arithmetic=FLOAT32,
    ),
    "ba477c03ac36a9b4895cab6751fb1d0a3d19dabede540cc8fc44bcd459ba99a0": BuiltIn(
        "conditional of 0.2.0",
        "74fe8c92a0714069e900638f415a748dfa151fd030d519416c8973732ef94fb0",
        "60,000 images of the public Fashion-MNIST, training split",
        arithmetic=FLOAT32,
    ),
    "5572f0dbe44d76fec59cd8a087b41817ed0bc639d3d20ce868813e7a4fba7341": BuiltIn(
        "private of 0.1.0",
        "7bd613fe847d4ef0b060de73ee8f1873a2ac1182bce070710920ad85e910ea01",
        "60,000 images of Fashion-MNIST, training split",
        "83cf3a84967b73c9ae7441b4f661f477b59322587d716e4804ef9353c110ed70",
        arithmetic=FLOAT32,
    ),
}


def origin_words(sha256: str) -> str:
    """Which built-in checkpoint a SHA-256 names, or that it names none, in a few words."""
    known = BUILT_IN.get(sha256)
    return f"built in: {known.title}" if known else "not built in"


def expect_possible_claim(sha256: str, recipe: Recipe, privacy: PrivacyStatement) -> None:
    """Refuse a privacy statement that a checkpoint with this hash and recipe cannot have.

    Args:
        sha256: the checkpoint's; of a built-in one, recipe and statement must be those it came with.
        recipe: how it says it was trained.
        privacy: its statement, which is proven by its own ledger.

    Raises:
        ValueError: in one line, what does not fit.
    """
    proof, budget = privacy.proof, recipe.privacy
    if not isinstance(recipe, _PRIVATE_METHODS):
        if proof is not None or budget is not None:
            raise ValueError(f"it claims privacy, but its recipe's method '{recipe.method}' protects nothing")
    elif proof is None or budget is None:
        raise ValueError(f"its recipe's method '{recipe.method}' is private, but its privacy statement claims nothing")
    elif proof.delta != budget.delta or proof.epsilon > budget.epsilon + _ROUNDING_UP:
        raise ValueError("its privacy statement is not within the budget of its recipe")
    if (known := BUILT_IN.get(sha256)) is None:
        return
    claim = None if proof is None else claim_sha256(proof.ledger, proof.delta)
    if claim != known.claim_sha256 or privacy.trained_on != known.trained_on:
        raise ValueError(f"its privacy statement is not that of the built-in checkpoint {known.title}")
    if recipe.sha256 != known.recipe_sha256:
        raise ValueError(f"its recipe is not that of the built-in checkpoint {known.title}")
