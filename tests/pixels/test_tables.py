"""The two tables are those of their formulas, and no mathematical library is so bad that it would make others."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from synthgen.errors import SynthgenError
from synthgen.pixels import tables
from synthgen.pixels.tables import GAUSSIAN_SHA256, GREY_SHA256, LATENT_LIMIT, gaussian_table, grey_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "pixels.md"


def test_latents_are_the_nearest_integers_to_scipys_quantiles():
    special = pytest.importorskip("scipy.special")
    exact = 32 * special.ndtri((np.arange(65536) + 0.5) / 65536)
    np.testing.assert_array_equal(gaussian_table(), np.clip(np.rint(exact), -127, 127))
    tie = np.abs(np.abs(exact - np.rint(exact)) - 0.5)[np.abs(exact) < 127]
    assert 3e-8 < tie.min() < 4e-8  # libraries differ by 1e-13


def test_grey_levels_are_the_nearest_integers_to_scipys_sigmoid():
    special = pytest.importorskip("scipy.special")
    exact = 255 * special.expit(np.arange(-1024, 1024) / 128)
    np.testing.assert_array_equal(grey_table(), np.rint(exact))
    tie = np.abs(np.abs(exact - np.rint(exact)) - 0.5)
    tie[1024] = 1  # a logit of 0 is 127.5 exactly, in every library, and becomes 128
    assert 1e-5 < tie.min() < 1e-2


def test_latents_are_a_normal_distribution_cut_off_at_the_ends():
    table = gaussian_table().astype(int)
    assert (table.min(), table.max()) == (-LATENT_LIMIT, LATENT_LIMIT)
    assert (np.diff(table) >= 0).all()
    np.testing.assert_array_equal(table, -table[::-1])
    assert abs((table / 32).std() - 1) < 1e-3


def test_grey_levels_rise_from_black_to_white():
    table = grey_table().astype(int)
    assert (table[0], table[1023], table[1024], table[2047]) == (0, 127, 128, 255)
    assert set(np.diff(table)) == {0, 1}


@pytest.mark.parametrize(("table", "sha256"), [(gaussian_table, GAUSSIAN_SHA256), (grey_table, GREY_SHA256)])
def test_the_tables_are_the_documented_ones(table, sha256: str):
    assert hashlib.sha256(table().tobytes()).hexdigest() == sha256
    assert f"`{sha256}`" in DOCUMENT.read_text("utf-8")
    with pytest.raises(ValueError, match="read-only"):
        table()[0] = 1


@pytest.mark.parametrize(
    ("table", "function", "wrong"),
    [(gaussian_table, "erfc", lambda x: math.erfc(x) * (1 + 1e-4)), (grey_table, "exp", lambda x: math.exp(x) + 1e-3)],
)
def test_a_library_that_gives_other_tables_is_refused(monkeypatch, table, function: str, wrong):
    class Library:
        def __getattr__(self, name: str) -> object:
            return wrong if name == function else getattr(math, name)

    monkeypatch.setattr(tables, "math", Library())
    with pytest.raises(SynthgenError, match="gives other tables") as refusal:
        table.__wrapped__()
    assert "\n" not in str(refusal.value)
