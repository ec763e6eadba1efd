"""`samplerbench score`: anybody's samples, ranked, with the floor of perfect ones."""

import numpy as np
import pytest

from samplerbench.app.commands import score
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def save(name, factor, count=500):
        np.save(f"{name}.npy", factor * grid_mixture().draws(count, "mine", 1).numpy())
        return f"{name}.npy"

    return save


def lines(capsys):
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_good_samples_come_first_and_cannot_be_told_apart(files, capsys):
    good, bad = files("good", 1.0), files("bad", 1.5)
    score.main([bad, good, "dataset=grid_mixture"])
    title, _, first, second = lines(capsys)
    told = "max_sliced_certified to GaussianMixture, 10,000 draws; distance with its 95 % interval"
    assert title == told
    assert good in first
    assert " ± " in first
    assert "cannot be told" in first
    assert bad in second
    assert second.endswith("told from the data")
    assert "cannot" not in second


def test_a_file_as_the_reference(files, capsys):
    data = files("data", 1.0, 4000)
    score.main([files("bad", 1.5), f"reference={data}", "metric=sliced"])
    assert lines(capsys)[2].endswith(" told from the data")
    score.main([files("many", 1.0, 3000), f"reference={data}", "metric=sliced"])
    assert "no floor" in lines(capsys)[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset=grid_mixture"], "score=no file"),
        (["nothing.npy"], "path=nothing.npy: must be a file"),
        (["{good}", "dataset=four_well", "metric=sliced"], "2 columns: must be 1 columns"),
        (["{good}", "metric=w_law_1d"], "needs 1-D data"),
        (["{good}", "metric=mode_weights", "reference={good}"], "no law here"),
        (["{good}", "reference={solid}"], "metric=max_sliced_certified: must be another one"),
        (["{good}", "n_reference=abc"], "n_reference=abc: must be a valid integer"),
        (["{good}", "seed=seven", "reference={good}"], "seed=seven: must be a valid integer"),
        (["{good}", "reference={good}", "dataset=gaussian"], "dataset=gaussian: must be left out"),
        (["{good}", "dataset=1"], "dataset=1: must be a name"),
        (["{good}", "metric=null"], "metric=null: must be a name"),
    ],
)
def test_mistakes_are_one_line(files, words, message):
    good = files("good", 1.0)
    np.save("solid.npy", np.ones((100, 3)) * np.arange(100)[:, None])
    with pytest.raises(InvalidSetting, match=message):
        score.main([word.format(good=good, solid="solid.npy") for word in words])


def test_samples_that_collapsed_and_odd_names_are_measured(files, capsys):
    np.save("eta=1.npy", np.zeros((500, 2)))
    score.main([files("good", 1.0), "eta=1.npy", "metric=sliced"])
    assert "eta=1.npy" in lines(capsys)[-1]
