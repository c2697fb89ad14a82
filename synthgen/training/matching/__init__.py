"""The recipe that matches a generator to noisy statistics: a few private looks, then training without the images.

In go the recipe and the images, or an earlier release; out come a release, its ledger and a checkpoint.
"""
