import json

from support import DATA, SAMPLE


def test_from_training_to_a_verified_set(synthgen, tmp_path):
    """The whole job, as a user does it, on real clothes."""
    trained = synthgen("train", "--recipe", "smoke", "--data", DATA, "--set", SAMPLE[0], "--out", "mine")
    assert trained.returncode == 0, trained.stderr
    assert [line[:4] for line in trained.stdout.splitlines()] == ["E:1,", "E:2,"]

    refused = synthgen("export", "--checkpoint", "mine", "--count", 300, "--out", "set")
    assert refused.returncode == 1
    assert "--allow-unprotected" in refused.stderr

    wanted = ["--count", 300, "--format", "png", "--out", "set", "--allow-unprotected"]
    exported = synthgen("export", "--checkpoint", "mine", *wanted)
    assert exported.returncode == 0, exported.stderr
    assert "No formal privacy guarantee" in exported.stderr
    assert (
        "No formal privacy guarantee" in json.loads((tmp_path / "set/manifest.json").read_text())["privacy"]["sentence"]
    )

    verified = synthgen("verify", "set", "--regenerate", 20, "--checkpoint", "mine")
    assert verified.returncode == 0, verified.stderr
    assert "sound: 300 images" in verified.stdout
    assert "20 drawn anew and equal" in verified.stdout

    image = next((tmp_path / "set/train").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    spoilt = synthgen("verify", "set")
    assert spoilt.returncode == 1
    assert image.name in spoilt.stderr
