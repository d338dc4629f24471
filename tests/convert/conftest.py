import contextlib
import io
import signal
import sys
import tracemalloc
import warnings
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "scripts")]

from convert.__main__ import main  # noqa: E402

MOST_MEMORY = 16 << 20  # bytes; the files of the tests have some thousand


class Converter:
    """Runs the command in this process: its exit status and what it says."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, kind, path):
        said = io.StringIO()
        signal.alarm(20)  # a hang ends the tests
        tracemalloc.start()
        with contextlib.redirect_stderr(said), warnings.catch_warnings():
            warnings.simplefilter("error")
            status = main([kind, str(path), str(self.folder / "out")])
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
        tracemalloc.stop()
        signal.alarm(0)
        return status, said.getvalue()

    def refuses(self, kind, path, *words):
        """One line that names the file and says each of the words; no file of a model is left behind."""
        status, said = self(kind, path)
        assert status == 1, said
        assert said.startswith(f"convert: {path}: ") and said.count("\n") == 1 and said.endswith("\n"), said
        assert len(said) < len(str(path)) + 300 and said[:-1].isprintable(), said
        for word in words:
            assert word in said, f"{word!r} is not in {said!r}"
        out = self.folder / "out"
        assert not out.exists() or not any(out.iterdir())


@pytest.fixture
def converter(tmp_path):
    return Converter(tmp_path)
