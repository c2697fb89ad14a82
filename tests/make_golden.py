"""Write the golden files of a release into tests/golden/: ``python tests/make_golden.py VERSION``.

Run it once for each release that changes what is written, and never edit what it wrote: test_golden.py proves that
later versions still read it.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import keras

from synthgen.export.run import generate, plan_export
from synthgen.model.checkpoint import save_checkpoint
from synthgen.model.networks import build_generator
from synthgen.model.recipe import load_recipe
from synthgen.privacy.statement import no_guarantee

OVERRIDES = ["data.official=false", "latent.size=4", "generator.stem_filters=2", "generator.filters=[2, 2]"]


def main() -> None:
    folder = Path(__file__).parent / "golden" / sys.argv[1]
    shutil.rmtree(folder, ignore_errors=True)
    recipe = load_recipe("smoke", OVERRIDES)
    keras.utils.set_random_seed(1)
    generator = build_generator(recipe)
    checkpoint = save_checkpoint(folder / "checkpoint", generator, recipe, no_guarantee("nothing: untrained"), {})
    for name in ("npz", "tfrecord", "hdf5"):
        plan = plan_export(checkpoint, count=20, start=250, file_format=name, seed=7)
        with tempfile.TemporaryDirectory() as scratch:
            generate(checkpoint, plan, Path(scratch) / "set", allow_unprotected=True)
            shutil.move(Path(scratch) / "set", folder / name)


if __name__ == "__main__":
    main()
