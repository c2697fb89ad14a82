"""Differential privacy: the random mechanisms, the ledger of those that were run, and the accountant that prices it.

Neighbouring data sets differ by one image with its label, added or removed. Only ``per_example``
and ``look_audit`` import TensorFlow, and ``dp_accounting`` is imported only when an epsilon is computed.
"""
