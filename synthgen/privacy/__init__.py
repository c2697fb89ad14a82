"""Differential privacy: random mechanisms, the ledger of those that ran, the accountant that prices it, the statement.

In go what is to be released and a budget; out come noisy values, a ledger and a proven epsilon.
"""

__all__ = ["accounting", "ledger", "mechanisms", "per_example", "statement"]
