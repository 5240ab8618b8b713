"""A result that reports are made of."""

import pytest
import result_files


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    file = tmp_path_factory.mktemp("hostile") / "run" / "results.h5"
    file.parent.mkdir()
    result_files.write(file, 8, 4)
    result_files.seal(file)
    return file
