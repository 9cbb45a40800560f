"""Days' works: an own objective from a file to a table, and the notebook of the examples."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "examples" / "own_model.ipynb"

OBJECTIVE = '''
from dataclasses import dataclass
from smoothcert.objectives import Loss, WholeBatch
from smoothcert.smoothing.soft import add_noise
from torch.nn.functional import multi_margin_loss

@dataclass(frozen=True)
class Margin(WholeBatch):
    sigma: float

    def loss(self, model, images, labels, step):
        return Loss(multi_margin_loss(model(add_noise(images, self.sigma, step.generator)), labels))
'''
STORY = '''
import smoothcert
from margin import Margin

smoothcert.train("linear", "digits", objective=Margin, sigma=0.25, epochs=3, out="net")
store = smoothcert.certify("net", n=500, max_images=20, seed=0, out="store")
page = smoothcert.table({"margin": store}, radii=[0, 0.25])
figure = smoothcert.plot({"margin": store})
'''


def test_an_own_objective_from_a_file_to_a_table(tmp_path, monkeypatch):
    assert len([line for line in (OBJECTIVE + STORY).splitlines() if line]) <= 25
    (tmp_path / "margin.py").write_text(OBJECTIVE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict = {}
    exec(STORY, names)
    assert "margin" in names["page"].to_text()
    assert names["store"].correct.mean() > 0.5
    assert names["figure"].axes
    card = json.loads((tmp_path / "net" / "model.json").read_text())
    assert card["identity"]["objective"]["sources"]


def test_the_notebook_tells_its_story_in_few_lines():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).splitlines()]
    assert len([line for line in lines if line.strip()]) < 25
    assert all(cell["outputs"] for cell in cells if cell["cell_type"] == "code")


def test_the_notebook_runs():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, 4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [list(output["data"]) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
             if output.output_type == "execute_result"]
    assert sum("text/html" in data for data in shown) == 4  # data, certificate, store, table
    assert sum("image/png" in data for data in shown) == 1
