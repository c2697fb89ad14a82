import ast
import subprocess
import sys
from pathlib import Path

import pytest

from synthgen.errors import UsageError
from synthgen.formats.table import DEFAULT_FORMAT, FORMATS, find_format

PACKAGE = Path(__file__).parents[2] / "synthgen"


def test_every_format_is_found_by_its_own_name():
    assert list(FORMATS) == [FORMATS[name].name for name in FORMATS]
    assert find_format(DEFAULT_FORMAT) is FORMATS[DEFAULT_FORMAT]
    assert all(FORMATS[name].bytes_an_image > 0 for name in FORMATS)


def test_an_unknown_format_is_refused_with_those_that_there_are():
    with pytest.raises(UsageError, match="format 'gif': expected one of tfrecord, hdf5, png, idx, idx-raw, npz"):
        find_format("gif")


def test_no_other_package_names_a_format():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "formats":
            texts = {
                node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
            }
            assert not texts & set(FORMATS), path


def test_the_names_are_known_without_the_libraries():
    code = (
        "import sys; from synthgen.formats.table import FORMATS; assert 'npz' in FORMATS and len(list(FORMATS)) == 6;"
        "sys.exit(bool({'numpy', 'h5py', 'PIL', 'google_crc32c', 'google.protobuf'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_format_brings_only_its_own_libraries():
    code = (
        "import sys; from synthgen.formats.table import FORMATS; FORMATS['npz'];"
        "sys.exit(bool({'h5py', 'PIL', 'google_crc32c', 'google.protobuf'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
