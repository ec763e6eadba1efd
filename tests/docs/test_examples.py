"""The notebooks in docs/examples: small, whole, and true when they are run again."""

import base64
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
PATHS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_there_is_one_for_each_story():
    names = {path.stem for path in PATHS}
    stories = {"langevin_and_its_cure", "score_matching_to_ddim", "reverse_sde_1d"}
    assert names == stories | {"your_own_sampler"}
    page = (FOLDER.parent / "library.md").read_text()
    assert all(f"(examples/{name}.ipynb)" in page for name in names)


def test_it_was_run_from_top_to_bottom_and_is_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert path.stat().st_size <= 300_000
    kinds = {output.output_type for output in outputs(notebook)}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs(notebook))
    pictures = [
        base64.b64decode(output.data["image/png"])
        for output in outputs(notebook)
        if "image/png" in output.get("data", {})
    ]
    assert pictures
    assert max(map(len, pictures)) <= 60_000
    # what the prose says is asserted where it is computed
    assert any("assert " in cell.source for cell in code)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_again_and_its_assertions_hold(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    # an assertion that fails ends the run with its cell
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    assert list(tmp_path.iterdir()) == []  # a notebook leaves nothing behind
