"""The figures of a report."""

from dataclasses import replace

from samplerbench.bench.cell import NOT_A_DENSITY
from samplerbench.figures.style import save
from samplerbench.report import figures
from samplerbench.report.content import gather


def test_outputs_without_a_density_are_marked(rows, entry, tmp_path, monkeypatch):
    """A cross where a drawn sampler has no density; none for a curve or start that is not drawn."""
    values = rows(etas=[0.0, 0.5, 1.0], metric="kl_law", reference="law")
    lost = {"value": float("nan"), "status": NOT_A_DENSITY}
    values = [
        replace(row, **lost) if row.eta == 1 or (row.eta == 0 and row.steps == 4) else row
        for row in values
    ]
    texts = []

    def kept(figure, path):
        texts.append([text.get_text() for axes in figure.axes for text in axes.texts])
        save(figure, path)

    monkeypatch.setattr(figures, "save", kept)
    figures.write_figures(gather([entry("#1", values)]), tmp_path, ["svg"])
    assert texts == [["× not a density (learned score)"]]
