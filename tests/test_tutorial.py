"""The tutorial's Python, which is the notebook's, runs from a folder of pictures to a report."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"


def code_cells():
    return [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]


def test_the_notebook_holds_the_tutorials_python():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    assert code_cells()[1:] == [block.rstrip("\n") for block in blocks]


def test_the_readmes_python_is_the_notebooks_too():
    [block] = re.findall(r"```python\n(import veridical.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block == "\n\n".join(code_cells()[1:4])


@pytest.mark.end_to_end
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", ()))
    assert "PairSet" in shown
    assert "chair" in shown
    assert "<svg" in (tmp_path / "report.html").read_text()
