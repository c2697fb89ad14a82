"""Differential privacy: random mechanisms, the accountant, the ledger of what was run, and the statement.

In go values to release and a budget; out come noisy values, a ledger and a proven epsilon.
"""

__all__ = [
    "accounting",
    "curve",
    "exact",
    "joint",
    "ledger",
    "mechanisms",
    "normal",
    "per_example",
    "selection",
    "spend_log",
    "statement",
]
