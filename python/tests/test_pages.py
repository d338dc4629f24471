"""The examples of the pages run as they stand."""

import pathlib
import re

import pytest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```python" in page.read_text()]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_block(block):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    exec(compile(block, "block", "exec"), {})


def test_there_are_some():
    assert len(BLOCKS) >= 4
