"""Requests that tests of the exporter share: 2,000 images in four shards, and a small one of 300 in two."""

from synthgen.export.plan import Job, plan_export
from synthgen.export.run import generate_share

COUNT, SHARDS = 2000, 4


def request(checkpoint, file_format: str = "npz", shards: int = SHARDS):
    return plan_export(checkpoint, count=COUNT, file_format=file_format, shards=shards)


def share(checkpoint, out, number: int, of: int = 2, **options) -> int:
    return generate_share(checkpoint, request(checkpoint, **options), out, share=number, of=of, allow_unprotected=True)


def small_job(checkpoint, file_format: str = "npz") -> Job:
    return Job.of(checkpoint, plan_export(checkpoint, count=300, file_format=file_format, shards=2))
