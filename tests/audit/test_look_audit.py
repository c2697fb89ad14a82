import numpy as np
import pytest
from support import DATA

from synthgen.audit import look_audit
from synthgen.audit.canaries import pattern_canaries
from synthgen.audit.look_audit import LookAudit
from synthgen.audit.one_run import one_run_audit
from synthgen.privacy.accounting import Mechanism
from synthgen.real_images import load_real_images
from synthgen.training.matching import looks as looks_module
from synthgen.training.matching.looks import LookPlan, embedding_sums


@pytest.fixture(scope="module")
def look() -> LookAudit:
    """A look at the tiny sample that claims much noise, with 200 canaries."""
    real = load_real_images("train", DATA, official=False)
    teacher = Mechanism(
        name="teacher", releases="g", noise_multiplier=20.0, l2_sensitivity=1.0, sampling_probability=0.2, steps=10
    )
    embedding = Mechanism(name="embedding", releases="s", noise_multiplier=10.0, l2_sensitivity=1.0)
    plan = LookPlan(teacher=teacher, embedding=embedding, learning_rate=1.0, classes=10)
    return LookAudit(images=real.images, labels=real.labels, planted=pattern_canaries(200), plan=plan)


def test_a_sound_look_is_not_contradicted(look: LookAudit):
    assert not one_run_audit(look, delta=1e-5).contradicts(1.0)


def test_a_look_gets_its_data_and_the_included_canaries_only(look: LookAudit, monkeypatch):
    seen = []
    monkeypatch.setattr(look_audit, "look_privately", lambda images, labels, *_, **__: seen.append((images, labels)))
    included = np.arange(200) % 3 == 0
    look.run(included)
    ((images, labels),) = seen
    assert (images == np.concatenate([look.images, look.planted.images[included]])).all()
    assert (labels == np.concatenate([look.labels, look.planted.labels[included]])).all()
    assert look.canaries == 200


def test_a_look_whose_sums_lack_their_noise_is_caught(look: LookAudit, monkeypatch):
    monkeypatch.setattr(looks_module, "noisy_sums", lambda *of: embedding_sums(*of[:4]))
    assert one_run_audit(look, delta=1e-5).contradicts(1.0)
