import numpy as np
import pytest
from support import DATA

from synthgen.evaluation.memorisation import measure_memorisation
from synthgen.real_images import load_real_images


@pytest.fixture(scope="module")
def real():
    """250 training images, 100 test images, and 250 more that no one has seen."""
    train = load_real_images("train", DATA, official=False).images
    return train[:250], load_real_images("test", DATA, official=False).images, train[250:]


def test_copied_training_images_are_found(real):
    train, test, _ = real
    found, pairs = measure_memorisation(train[:90], train, test)
    assert found.synthetic.exact_copies == 90
    assert found.synthetic.near_copies == 1
    assert found.synthetic.training_quantiles == (0, 0, 0, 0, 0)
    assert found.synthetic.nearer_to_training > 0.65  # one part of the training images holds the copies
    assert pairs.training_rms == (0,) * 18
    assert (pairs.synthetic == pairs.training).all()


def test_slightly_changed_copies_are_found(real):
    train, test, _ = real
    noise = np.random.default_rng(0).integers(-3, 4, train.shape)
    changed = (train.astype(int) + noise).clip(0, 255).astype(np.uint8)
    found, _ = measure_memorisation(changed, train, test)
    assert found.synthetic.exact_copies == 0
    assert found.synthetic.near_copies > 0.95
    assert found.synthetic.ratio < 0.99


def test_fresh_real_images_are_no_copies(real):
    train, test, fresh = real
    found, _ = measure_memorisation(fresh, train, test)
    assert found.synthetic.exact_copies == 0
    assert found.synthetic.near_copies < 0.1
    assert found.synthetic.nearer_to_training == pytest.approx(0.5, abs=0.1)
    assert found.synthetic.ratio == pytest.approx(1, abs=0.1)
    assert found.real.nearer_to_training == pytest.approx(0.5, abs=0.1)


def test_the_whole_is_the_nearest_of_the_parts(real):
    train, test, fresh = real
    found, pairs = measure_memorisation(fresh, train, test)
    gaps = fresh[:, None].astype(int) - train[None]
    distances = np.sqrt((gaps**2).mean((2, 3)))
    assert found.synthetic.training_quantiles == pytest.approx(
        np.quantile(distances.min(1), (0.01, 0.1, 0.5, 0.9, 0.99)).tolist()
    )
    query = distances.min(1).argmin()
    assert (pairs.synthetic[0] == fresh[query]).all()
    assert (pairs.training[0] == train[distances[query].argmin()]).all()


def test_repeated_images_are_counted_and_each_pair_shown_once(real):
    train, test, fresh = real
    images = fresh.copy()
    images[10] = images[200]
    images[20] = images[201]
    images[20, 0, 0] ^= 1
    found, pairs = measure_memorisation(images, train, test)
    assert found.repetition.exact_duplicates == 2
    assert found.repetition.near_duplicates >= 4 / len(images)
    assert pairs.set_rms[0] == 0
    assert pairs.set_rms[1] == pytest.approx(1 / 28)
    assert pairs.set_rms[2] > 1
    assert (pairs.one[0] == pairs.other[0]).all()


def test_histograms_are_shares(real):
    train, test, fresh = real
    synthetic = measure_memorisation(fresh, train, test)[0].synthetic
    assert sum(synthetic.part_histogram) == pytest.approx(1, abs=0.01)
    assert sum(synthetic.test_histogram) == pytest.approx(1, abs=0.01)


def test_only_the_first_are_judged_but_against_all(real):
    train, test, fresh = real
    images = np.concatenate([fresh[:60], fresh[:1]])
    found, _ = measure_memorisation(images, train, test, most=50)
    assert found.synthetic.images == found.repetition.images == found.real.images == 50
    assert found.repetition.exact_duplicates == 1


def test_sets_without_variety_give_numbers(real):
    train, test, _ = real
    found, pairs = measure_memorisation(np.zeros((30, 28, 28), np.uint8), train, test)
    assert found.repetition.exact_duplicates == 30
    assert len(pairs.one) <= 18
    alone, pairs = measure_memorisation(train[:1], train, test)
    assert alone.repetition is None
    assert len(pairs.one) == len(pairs.set_rms) == 0
    assert alone.synthetic.exact_copies == 1
