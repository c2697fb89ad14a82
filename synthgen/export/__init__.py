"""Export: a checkpoint and a request become a set with its manifest, in one process or on many machines.

In go a checkpoint and what to draw; out come shards, sidecars and, last of all, the manifest.
"""

__all__ = ["engine", "plan", "run", "shard", "splits"]
