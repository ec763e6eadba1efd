"""`samplerbench score`: anybody's samples, ranked, with the floor of perfect ones."""

import numpy as np
import pytest
import torch
from scipy import stats

from samplerbench.app.commands import score
from samplerbench.app.commands.score import prediction, relabelled
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.sliced import Sliced


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
    title, heading, first, second = lines(capsys)
    assert heading.endswith("verdict by max_sliced_certified")
    told = "max_sliced_certified to GaussianMixture, 10,000 draws; distance with its 95 % interval"
    assert title == told
    assert good in first
    assert " ± " in first
    assert "cannot be told" in first
    assert bad in second
    assert second.endswith("(39 sets)  told from the data")
    assert "cannot" not in second


def test_a_file_as_the_reference(files, capsys):
    data = files("data", 1.0, 4000)
    score.main([files("bad", 1.5), f"reference={data}", "metric=sliced"])
    assert lines(capsys)[2].endswith(" told from the data")
    score.main([files("many", 1.0, 3000), f"reference={data}", "metric=sliced"])
    assert lines(capsys)[2].endswith("(39 sets)  cannot be told from the data")


LAWS = {
    "normal": lambda rng, *shape: 5 + rng.standard_normal(shape),
    "main job": lambda rng, *shape: 1.42 * np.exp(0.18 * rng.standard_normal(shape)),
    "t3": lambda rng, *shape: np.sqrt((rng.standard_t(3, (*shape, 30)) ** 2).mean(-1)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("count", "most"), [(2, 0.045), (5, 0.06), (10, 0.06), (39, 0.025), (40, 0.025)]
)
def test_perfect_samples_are_outside_as_rarely_as_promised(law, count, most):
    """2.5 % a side from 39 draws on, for any law; near that for fewer, of which t₃ has most."""
    rng = np.random.default_rng(0)
    floors, more = LAWS[law](rng, 4000, count), LAWS[law](rng, 4000)
    low, high = np.transpose([prediction(floor) for floor in floors])
    for outside in (more > high, more < low):
        assert outside.mean() <= most + 3 * (most * (1 - most) / 4000) ** 0.5
    if law != "t3":
        assert (more > high).mean() > 0.01


def test_a_prediction_is_that_of_the_text_books():
    """mean ± t·s·√(1 + 1/R), of numbers that need not be positive."""
    floor = np.array([-1.0, 0.0, 2.0])
    half = stats.t.ppf(0.975, 2) * floor.std(ddof=1) * (4 / 3) ** 0.5
    assert prediction(floor) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    logarithms = prediction(np.exp(floor))
    assert logarithms == pytest.approx((np.exp(1 / 3 - half), np.exp(1 / 3 + half)))


@pytest.mark.parametrize(("n", "m"), [(40, 60), (60, 60), (90, 30)])
def test_two_files_of_one_law_are_told_apart_as_rarely_as_promised(n, m):
    """Heavy tails, and any sizes: 2.5 % a side."""
    metric, rng = Sliced(directions=2), np.random.default_rng(n + m)
    above = below = 0
    for trial in range(160):
        samples, points = (torch.from_numpy(rng.standard_t(3, (k, 2))) for k in (n, m))
        value = metric.against(points, seed=trial)(samples).value
        low, high = prediction(relabelled(metric, samples, points, trial))
        above, below = above + (value > high), below + (value < low)
    assert above <= 11  # 4 are expected: more has a chance of .1 %
    assert below <= 11
    shifted = prediction(relabelled(metric, samples + 5, points, 0))
    assert metric.against(points, seed=0)(samples + 5).value > shifted[1]


def test_one_set_of_fresh_draws_is_no_verdict(files, capsys):
    data = files("data", 1.0, 4000)
    words = ["dataset=file", f"dataset.path={data}", "n_reference=500", "metric=sliced"]
    score.main([files("good", 1.0, 700), *words])
    text = "no verdict: the data have one set of fresh draws of this size"
    assert lines(capsys)[2].endswith(text)
    score.main([files("few", 1.0, 200), *words])
    assert "(4 sets)" in lines(capsys)[2]


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
        (["{good}", "metric=exact_w2", "metric.exact_w2.max_pairs=9"], "500 rows: must be fewer"),
        (
            ["{good}", "metric=exact_w2", "metric.exact_w2.max_pairs=9", "reference={good}"],
            "500 rows: must be fewer for exact_w2: 500 × 500 is more than",
        ),
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
