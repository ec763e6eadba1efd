"""`samplerbench score`: anybody's samples, ranked, with the floor of perfect ones."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy import stats

import samplerbench as sb
from helpers import mostly_slow
from samplerbench.app.commands import score
from samplerbench.bench.scoring import prediction, relabelled
from samplerbench.datasets.grid_mixture import grid_mixture
from samplerbench.errors import InvalidSetting
from samplerbench.metrics.sliced import Sliced

SLICED = ("metric=sliced", "metric.sliced.directions=50")


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
    title, heading, first, second, *compared = lines(capsys)
    assert heading.endswith("verdict by max_sliced_certified")
    told = "max_sliced_certified to grid_mixture, 10,000 draws; distance with its 95 % interval"
    assert title == told
    assert good in first
    assert " ± " in first
    assert "not distinguishable" in first
    assert bad in second
    assert second.endswith("(39 sets)  differs from the data")
    assert "not" not in second
    assert compared[0].endswith("row by row, with 95 % intervals; Holm over 1 comparison")
    assert compared[2].split()[:3] == [bad, good, "500"]
    assert compared[2].endswith("distinguishable")


def test_files_with_the_same_values_have_no_correction(files, capsys):
    score.main([files("a", 1.0), files("b", 1.0), "dataset=grid_mixture", "metric=sliced"])
    *_, title, _, pair = lines(capsys)
    assert title == "differences of sliced, row by row, with 95 % intervals"
    assert pair.endswith("the same values")


def test_the_numbers_of_the_table_in_a_file(files, capsys):
    samples = [files("good", 1.0), files("bad", 1.5)]
    for name, read in (("a.csv", pd.read_csv), ("a.json", pd.read_json)):
        words = ["dataset=grid_mixture", "metric=[sliced,energy]", "n_reference=400"]
        score.main([*samples, *words, f"out={name}"])
        table = read(name)
        assert list(table["metric"]) == ["sliced"] * 3 + ["energy"] * 3
        assert list(table["samples"][:3]) == [*samples, samples[1]]
        assert list(table["kind"]) == ["distance", "distance", "difference"] * 2
        assert list(table["minus"][[2, 5]]) == samples[:1] * 2
        assert set(table["n"]) == set(table["ess"][table["kind"] == "distance"]) == {500}
        assert table["floor_upper"][0] > table["distance"][0] > table["floor_lower"][0]
        assert table["floor_sets"].tolist()[:2] == [39, 39]
        of_floor = ["ess", "floor", "floor_sets", "floor_lower", "floor_upper"]
        assert table.loc[[2, 5], of_floor].isna().all(axis=None)
        assert list(table["verdict"][:2]) == [
            "not distinguishable from the data",
            "differs from the data",
        ]
    printed = capsys.readouterr().out
    assert all(verdict in printed for verdict in table["verdict"])
    for name, message in (("a.csv", "a new file"), ("a.xls", "a file of .csv or .json")):
        with pytest.raises(InvalidSetting, match=f"^out={name}: must be {message}"):
            score.main([*samples, f"out={name}"])


@pytest.mark.slow
def test_a_file_as_the_reference(files, capsys):
    data = files("data", 1.0, 2000)
    score.main([files("bad", 1.5), f"reference={data}", *SLICED])
    assert lines(capsys)[2].endswith(" differs from the data")
    score.main([files("many", 1.0, 1500), f"reference={data}", *SLICED])
    assert lines(capsys)[2].endswith("(39 sets)  not distinguishable from the data")


LAWS = {
    "normal": lambda rng, *shape: 5 + rng.standard_normal(shape),
    "main job": lambda rng, *shape: 1.42 * np.exp(0.18 * rng.standard_normal(shape)),
    "t3": lambda rng, *shape: np.sqrt((rng.standard_t(3, (*shape, 30)) ** 2).mean(-1)),
}


@pytest.mark.parametrize("law", mostly_slow(LAWS, 2))
@pytest.mark.parametrize(
    ("count", "most"), [(2, 0.045), (5, 0.06), (10, 0.06), (39, 0.025), (40, 0.025)]
)
def test_perfect_samples_are_outside_as_rarely_as_promised(law, count, most):
    """2.5 % on each side from 39 draws on, for any law; nearly so for fewer, t₃ being the worst."""
    rng = np.random.default_rng(0)
    floors, more = LAWS[law](rng, 2000, count), LAWS[law](rng, 2000)
    low, high = np.transpose([prediction(floor) for floor in floors])
    for outside in (more > high, more < low):
        assert outside.mean() <= most + 3 * (most * (1 - most) / 2000) ** 0.5
    if law != "t3":
        assert (more > high).mean() > 0.01


def test_a_prediction_is_that_of_the_text_books():
    """mean ± t·s·√(1 + 1/R), of numbers that need not be positive."""
    floor = np.array([-1.0, 0.0, 2.0])
    half = stats.t.ppf(0.975, 2) * floor.std(ddof=1) * (4 / 3) ** 0.5
    assert prediction(floor) == pytest.approx((1 / 3 - half, 1 / 3 + half))
    logarithms = prediction(np.exp(floor))
    assert logarithms == pytest.approx((np.exp(1 / 3 - half), np.exp(1 / 3 + half)))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m"), [(90, 30), (40, 60)], ids=str)
def test_two_files_of_one_law_are_told_apart_as_rarely_as_promised(n, m):
    """Heavy tails, and any sizes: 2.5 % a side."""
    metric, rng = Sliced(directions=2), np.random.default_rng(n + m)
    above = below = 0
    for trial in range(80):
        samples, points = (torch.from_numpy(rng.standard_t(3, (k, 2))) for k in (n, m))
        value = metric.against(points, seed=trial)(samples).value
        low, high = prediction(relabelled(metric, samples, points, trial))
        above, below = above + (value > high), below + (value < low)
    assert above <= 7  # 2 are expected: more has a chance of .1 %
    assert below <= 7
    shifted = prediction(relabelled(metric, samples + 5, points, 0))
    assert metric.against(points, seed=0)(samples + 5).value > shifted[1]


def test_a_file_of_data_is_used_as_far_as_it_goes(files, capsys):
    """A fifth of 1 500 rows represents the data; a larger given number is refused."""
    data, samples = files("data", 1.0, 1500), files("samples", 1.0, 100)
    words = [samples, "dataset=file", f"dataset.path={data}", "metric=sliced"]
    score.main([*map(str, words)])
    assert "sliced to data.npy, 300 draws" in capsys.readouterr().out
    with pytest.raises(InvalidSetting, match="n_reference=301: must be at most 300"):
        score.main([*map(str, words), "n_reference=301"])


def test_one_set_of_fresh_draws_is_no_verdict(files, capsys):
    data = files("data", 1.0, 4000)
    words = ["dataset=file", f"dataset.path={data}", "n_reference=500", "metric=sliced"]
    score.main([files("good", 1.0, 700), *words])
    text = "no verdict: one set of fresh draws of this size"
    *_, line, hint = lines(capsys)
    assert line.endswith(text)
    assert hint.endswith("reference=FILE takes it from both files")
    score.main([files("few", 1.0, 200), *words])
    *_, last = lines(capsys)
    assert "(4 sets)" in last, "no hint follows"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset=grid_mixture"], "^score: must be followed by files of samples"),
        (["nothing.npy"], "^nothing.npy: must be a file"),
        (["{good}", "dataset=four_well", "metric=sliced"], "2 columns: must be 1 column,"),
        (["{good}"], "must be compared with a file of data .samplerbench score .* reference="),
        (["my rows.npy"], "^my rows.npy: .* score 'my rows.npy' dataset=grid_mixture"),
        (["{good}", "dataset=grid_mixture", "metric=w_law_1d"], "needs 1-D data"),
        (["{good}", "metric=mode_weights", "reference={good}"], "a file has no law"),
        (["{good}", "reference={solid}"], "metric=max_sliced_certified: must be another one"),
        (
            ["{good}", "dataset=grid_mixture", "n_reference=abc"],
            "n_reference=abc: must be a valid integer",
        ),
        (["{good}", "dataset=grid_mixture", "n_reference=1"], "n_reference=1: must be at least 2"),
        (["{good}", "dataset=[grid_mixture,two_moons]"], "two_moons.: must be one name"),
        (["{good}", "seed=seven", "reference={good}"], "seed=seven: must be a valid integer"),
        (["{good}", "reference={good}", "dataset=gaussian"], "dataset=gaussian: must be left out"),
        (["{good}", "dataset=1"], "dataset=1: must be a name"),
        (["side.npy", "dataset=grid_mixture"], "on its side; save its transpose"),
        (["{good}", "reference=side.npy"], "it is 2 × 500; save its transpose"),
        (
            ["{good}", "reference={good}", "layout=chain,draw"],
            "at least 4 draws: with this layout it has 500 of 2 draws, in dimension 1; layout=draw",
        ),
        (["god.npy", "dataset=grid_mixture"], "god.npy: must be a file .*; did you mean good.npy?"),
        (
            ["{good}", "two_moon"],
            "two_moon: must be a file that exists; did you mean dataset=two_m",
        ),
        (["{good}", "{good}", "dataset=grid_mixture"], "good.npy: must be given once"),
        (["", "dataset=grid_mixture"], '"": must be a file that exists'),
        (["{good}", "dataset=grid_mixture", "frame=last"], "shape .frames, n, dim., beside frame"),
        (["{good}", "dataset=grid_mixture", "lay=draw"], "lay=draw: .*; did you mean layout?"),
        (["{good}", "dataset=grid_mixture", "frame=3"], "frame=3: must be last or all"),
        (["{good}", "dataset=grid_mixture", "metric=null"], "metric=null: must be a name"),
        (
            ["{good}", "dataset=grid_mixture", "metric=exact_w2", "metric.exact_w2.max_pairs=9"],
            "500 rows: must be fewer",
        ),
        (
            ["{good}", "metric=exact_w2", "metric.exact_w2.max_pairs=9", "reference={good}"],
            "500 rows: must be fewer for exact_w2: 500 × 500 is more than",
        ),
    ],
)
def test_mistakes_are_one_line(files, words, message):
    good = files("good", 1.0)
    np.save("side.npy", np.load(good).T)
    np.save("solid.npy", np.ones((100, 3)) * np.arange(100)[:, None])
    np.save("my rows.npy", np.load(good))
    with pytest.raises(InvalidSetting, match=message):
        score.main([word.format(good=good, solid="solid.npy") for word in words])


def test_few_rows_have_no_interval_and_say_so(files, capsys):
    score.main([files("few", 1.0, 5), "dataset=grid_mixture", "metric=sliced"])
    *_, line, note = lines(capsys)
    assert " ± " not in line
    assert note == "few.npy: no interval from 5 rows: at least 50 have one"


@pytest.mark.slow
def test_samples_that_collapsed_and_odd_names_are_measured(files, capsys):
    np.save("eta=1.npy", np.zeros((500, 2)))
    score.main([files("good", 1.0), "eta=1.npy", "dataset=grid_mixture", "metric=sliced"])
    assert "eta=1.npy" in lines(capsys)[3]


def test_states_along_the_way_are_scored_at_their_end_or_all(files, capsys):
    end = np.load(files("end", 1.0))
    np.save("way.npy", np.stack([10 * end, 3 * end, end]))
    words = ["way.npy", "dataset=grid_mixture", "n_reference=1000", *SLICED]
    with pytest.raises(InvalidSetting, match="frame=last or frame=all that sample --every wrote"):
        score.main(words)
    score.main(["end.npy", *words[1:]])
    alone = lines(capsys)[-1]
    score.main([*words, "frame=last"])
    assert lines(capsys)[-1].split()[1:] == alone.split()[1:]
    score.main([*words, "frame=all"])
    curve = lines(capsys)[2:]
    assert [line.split()[0] for line in curve] == [f"way.npy[{k}]" for k in range(3)]
    assert curve[-1].split()[1:] == alone.split()[1:]


@pytest.mark.slow
def test_a_folder_of_images(tmp_path, monkeypatch, capsys):
    """An image is 2·v/255 − 1 in the order of the names, of the channels that the data have."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (240, 3, 3), np.uint8)
    for folder, mode in (("grey", "L"), ("colours", "RGB"), ("data", "L")):
        (tmp_path / folder).mkdir()
        for number, image in enumerate(pixels[: None if folder == "data" else 60]):
            Image.fromarray(image).convert(mode).save(f"{folder}/{number:03}.tif")
    np.save("flat.npy", pixels[:60].reshape(60, -1) / 127.5 - 1)
    words = ["dataset=image_folder", "dataset.path=data", "dataset.size=3", "dataset.colours=grey"]
    words += ["dataset.train=.1", "dataset.validation=.1", "n_reference=20", *SLICED]
    score.main(["grey", "colours", "flat.npy", *words])
    found = lines(capsys)
    found = [line for line in found if line.split()[0] in ("grey", "colours", "flat.npy")]
    assert len({line.split(maxsplit=1)[1] for line in found[:3]}) == 1
    assert [line.split()[-3:] for line in found[3:]] == [["the", "same", "values"]] * 3
    score.main(["grey", "reference=colours", *SLICED])
    assert " 0.000 " in lines(capsys)[2]
    Image.new("L", (4, 3)).save("grey/larger.png")
    for words, message in (
        (["dataset=grid_mixture"], r"points of shape \(2,\): must be a data set of images"),
        (["reference=data", "metric=sliced"], "images of 3 × 3 pixels, not 3 × 4"),
        (
            ["reference=data", "array=x", "metric=sliced"],
            "array=x: must be left out: grey is a folder",
        ),
    ):
        with pytest.raises(InvalidSetting, match=message):
            score.main(["grey", *words])


NORMAL = ["dataset=gaussian", "dataset.mean=[0,0]", "dataset.covariance=[[1,0],[0,1]]", *SLICED]
NORMAL += ["n_reference=2000"]


def autoregressive(correlation, draws, chains, seed):
    """Stationary chains of N(0, I), shape (draws, chains, 2): correct, and dependent."""
    z = np.random.default_rng(seed).standard_normal((draws, chains, 2))
    x = z.copy()
    for t in range(1, draws):
        x[t] = correlation * x[t - 1] + np.sqrt(1 - correlation**2) * z[t]
    return x


@pytest.fixture
def chains(tmp_path, monkeypatch):
    """A folder with four correct chains in several files."""
    pytest.importorskip("arviz")
    monkeypatch.chdir(tmp_path)
    x = autoregressive(0.8, 1000, 4, 0)
    np.save("draw_chain.npy", x)
    np.save("chain_draw.npy", np.moveaxis(x, 1, 0))
    np.save("one.npy", x[:, 0])
    np.savez("several.npz", theta=np.moveaxis(x, 1, 0), lp=np.zeros((4, 1000)))
    np.savez("single.npz", x[:, 0])
    head = "# model = normal\nlp__,accept_stat__,theta.1,theta.2,mu\n# Adaptation terminated\n"
    rows = [f"-1.0,0.9,{a},{b},3.0\n" for a, b in x[:, 0]]
    (tmp_path / "stan.csv").write_text(head + "".join(rows) + "# Elapsed Time: 1 seconds\n")
    return x


def test_chains_are_worth_fewer_draws_and_their_floor_is_that_of_so_many(chains, capsys):
    """One chain of an AR(1) process: ESS n·(1 − ρ)/(1 + ρ), a ninth of the states."""
    score.main(["one.npy", *NORMAL])
    independent = lines(capsys)
    assert independent[2].endswith("  no verdict: its rows depend on each other")
    note = "one.npy: its rows depend on the rows before them: use layout=draw for a chain"
    assert " ".join(independent[3:]).startswith(note)
    score.main(["one.npy", *NORMAL, "layout=draw"])
    line = lines(capsys)[2]
    _, n, ess, r_hat, *_ = line.split()
    assert n == "1,000"
    assert int(ess) == pytest.approx(1000 / 9, rel=0.3)
    assert float(r_hat) < 1.03
    assert "not distinguishable from the data" in line


def test_flattened_chains_are_named_with_their_number(tmp_path, monkeypatch, capsys):
    """As emcee's get_chain(flat=True): the states of all walkers, one time after the other."""
    monkeypatch.chdir(tmp_path)
    states = autoregressive(0.8, 200, 8, 0)
    np.save("flat.npy", states.reshape(-1, 2))
    np.save("good.npy", autoregressive(0.0, 1600, 1, 1)[:, 0])
    score.main(["flat.npy", "good.npy", *NORMAL])
    printed = lines(capsys)
    (line,) = (line for line in printed if line.startswith("flat.npy  "))
    assert line.endswith("  no verdict: its rows depend on each other")
    assert not any(line.startswith("farther") for line in printed), "it is not compared"
    said = " ".join(printed[printed.index(line) :])
    assert "flat.npy: its rows depend on the rows 8 places before them, as those of 8 cha" in said
    assert "use layout=draw,chain for an array of shape (draws, 8, 2), or shuffle" in said


def test_a_reference_whose_rows_depend_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, correlation in (("chain.npy", 0.9), ("independent.npy", 0.0)):
        np.save(name, autoregressive(correlation, 1000, 1, 3)[:, 0])
    note = "chain.npy: its rows depend on the rows before them, and the floor is too low for that"
    score.main(["independent.npy", "reference=chain.npy", *SLICED])
    assert lines(capsys)[0] == f"{note}; thin it"
    score.main(["independent.npy", "reference=independent.npy", *SLICED])
    assert "rows depend" not in "".join(lines(capsys))


@pytest.mark.slow
def test_few_of_many_correct_chains_are_told(tmp_path, monkeypatch, capsys):
    pytest.importorskip("arviz")
    monkeypatch.chdir(tmp_path)
    names = [f"{seed}.npy" for seed in range(10)]
    for seed, name in enumerate(names):
        np.save(name, autoregressive(0.8, 1000, 1, seed)[:, 0])
    score.main([*names, *NORMAL, "layout=draw"])
    rows = lines(capsys)[2:12]
    assert [row.split()[0] for row in rows] != sorted(names), "the nearest file is first"
    assert not any(row.endswith("  differs from the data") for row in rows)
    score.main([*names, *NORMAL])
    assert sum("no verdict: its rows depend" in row for row in lines(capsys)) == len(names)


@pytest.mark.slow
def test_a_wrong_chain_is_still_told(tmp_path, monkeypatch, capsys):
    pytest.importorskip("arviz")
    monkeypatch.chdir(tmp_path)
    np.save("wide.npy", 1.5 * autoregressive(0.5, 2000, 4, 0))
    apart = autoregressive(0.5, 500, 4, 1) + 3 * np.arange(4)[:, None]
    np.save("apart.npy", apart)
    score.main(["wide.npy", "apart.npy", *NORMAL, "layout=draw,chain"])
    wide, unmixed = lines(capsys)[2:4]
    assert wide.endswith("  differs from the data")
    assert unmixed.endswith("no verdict: R̂ is above 1.01")


@pytest.mark.slow
def test_files_may_have_layouts_of_their_own(tmp_path, monkeypatch, capsys):
    """The same chains in both orders of the axes, and their states as independent samples."""
    pytest.importorskip("arviz")
    monkeypatch.chdir(tmp_path)
    states = autoregressive(0.5, 300, 4, 0)
    np.save("one.npy", states)
    np.save("other.npy", states.swapaxes(0, 1))
    np.save("flat.npy", np.random.default_rng(1).permutation(states.reshape(-1, 2)))
    files = ["one.npy", "other.npy", "flat.npy", *NORMAL]
    score.main([*files, "layout=draw,chain/chain,draw/none", "out=s.csv"])
    table = pd.read_csv("s.csv").query("kind == 'distance'").set_index("samples")
    assert table["ess"]["one.npy"] == table["ess"]["other.npy"] < 1200 == table["ess"]["flat.npy"]
    assert table["distance"]["one.npy"] == pytest.approx(table["distance"]["other.npy"])
    flat = next(line for line in lines(capsys) if line.startswith("flat.npy"))
    assert flat.split()[:4] == ["flat.npy", "1,200", "1,200", "–"]
    with pytest.raises(InvalidSetting, match="one for all files, or one for each of the 3"):
        score.main([*files, "layout=draw,chain/chain,draw"])
    arrays = {"one": states, "flat": states.reshape(-1, 2)}
    law = sb.dataset("gaussian", mean=[0, 0], covariance=[[1, 0], [0, 1]])
    few = sb.metric("sliced", directions=20)
    with pytest.warns(UserWarning, match=r"flat: .* layout='draw,chain' for .* \(draws, 4, 2\)"):
        found = sb.score(arrays, law, metrics=few, layout={"one": "draw,chain"})
    assert found["ess"].tolist()[0] == table["ess"]["one.npy"]
    with pytest.raises(InvalidSetting, match="layout=two: must be one of the samples one, flat"):
        sb.score(arrays, law, layout={"two": "draw"})


def test_a_layout_is_asked_for_and_not_guessed(chains, capsys):
    with pytest.raises(InvalidSetting, match="layout=draw,chain says that these are chains"):
        score.main(["draw_chain.npy", *NORMAL])
    found = []
    for words in (
        ["draw_chain.npy", "layout=draw,chain"],
        ["chain_draw.npy", "layout=chain,draw"],
        ["several.npz", "layout=chain,draw", "array=theta"],
    ):
        score.main([*words, *NORMAL])
        found.append(lines(capsys)[2].split(maxsplit=1)[1])
    assert len(set(found)) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # ArviZ has its own
        score.main(["draw_chain.npy", "layout=chain,draw", *NORMAL])
    asked = "neighbouring chains depend on each other: is it the other layout?"
    assert lines(capsys)[-1] == f"draw_chain.npy: 1,000 chains of 4 draws: {asked}"


@pytest.mark.slow
def test_chains_of_other_programs(chains, capsys):
    """Stan's CSV without its own columns, and a .npz file of one array."""
    found = []
    for words in (["stan.csv", "columns=theta"], ["stan.csv", "columns=theta.1,theta.2"]):
        score.main([*words, *NORMAL, "layout=draw"])
        found.append(lines(capsys)[2].split(maxsplit=1)[1])
    score.main(["single.npz", *NORMAL, "layout=draw"])
    assert found[0] == found[1] == lines(capsys)[2].split(maxsplit=1)[1]
    with pytest.raises(InvalidSetting, match="3 columns: must be 2 columns"):  # mu too
        score.main(["stan.csv", *NORMAL])


def test_columns_of_the_reference(tmp_path, monkeypatch, capsys):
    """`columns` chooses the same columns of a reference that is a table, and not of an array."""
    monkeypatch.chdir(tmp_path)
    rows = torch.randn(2, 400, 3, generator=torch.Generator().manual_seed(0)).numpy()
    for name, points in zip(("samples", "data"), rows, strict=True):
        pd.DataFrame(points, columns=["x", "id", "y"]).to_csv(f"{name}.csv", index=False)
    np.save("data.npy", rows[1][:, [0, 2]])
    found = []
    for reference in ("data.csv", "data.npy"):
        words = [f"reference={reference}", "columns=x,y", "metric=sliced"]
        score.main(["samples.csv", *words])
        found.append([line.split() for line in lines(capsys) if line.startswith("samples.csv")])
    assert len(found[0]) == 1
    assert [entry[:3] for entry in found[0]] == [entry[:3] for entry in found[1]]


@pytest.mark.slow
def test_the_chains_of_arviz_name_their_axes(chains, capsys):
    """All variables of the posterior, in any order of axes; the numbers of a .npy of the same."""
    xarray = pytest.importorskip("xarray")
    theta = xarray.DataArray(chains, dims=("draw", "chain", "entry"))
    posterior = xarray.Dataset({"theta": theta, "mu": theta[..., 0]})
    posterior.to_netcdf("fit.nc", group="posterior", engine="h5netcdf")
    xarray.Dataset().to_netcdf("empty.nc", group="prior", engine="h5netcdf")
    found = []
    for words in (
        ["fit.nc", "columns=theta"],
        ["fit.nc", "columns=theta.0,theta.1"],
        ["draw_chain.npy", "layout=draw,chain"],
    ):
        score.main([*words, *NORMAL])
        found.append(lines(capsys)[2].split(maxsplit=1)[1])
    assert len(set(found)) == 1
    for words, message in (
        (["fit.nc"], "3 columns: must be 2 columns, as the data have; columns=NAME,NAME chooses"),
        (["fit.nc", "layout=draw,chain"], "must be left out: fit.nc names its axes"),
        (["fit.nc", "columns=nu"], r"columns=nu: must be some of theta\.0, theta\.1, mu"),
        (["empty.nc"], "NetCDF with a group posterior, as ArviZ writes it: .*group not found"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            score.main([*words, *NORMAL])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["several.npz"], "array=: must be given, one of those in several.npz: theta, lp"),
        (["several.npz", "array=beta"], "array=beta: must be one of those in .*: theta, lp"),
        (["one.npy", "array=theta"], "array=theta: must be left out"),
        (["stan.csv", "columns=nu"], r"columns=nu: must be some of lp__, accept_stat__, theta\.1"),
        (["one.npy", "columns=x"], "columns=x: must be left out"),
        (["one.npy", "layout=rows"], "layout=rows: must be one of draw or chain,draw"),
        (["draw_chain.npy", "layout=draw"], r"shape \(draw, dim\) for layout=draw: it is \(1000"),
    ],
)
def test_mistakes_of_chains_are_one_line(chains, words, message):
    with pytest.raises(InvalidSetting, match=message):
        score.main([*words, *NORMAL])
