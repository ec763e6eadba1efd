"""Finite data: the empirical law and its ideal denoiser, a user's file, its four parts."""

from __future__ import annotations

import functools
import math
import pickle
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import float64
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from helpers import mostly_slow, refused_in_one_line
from samplerbench.core.grids import Level
from samplerbench.core.schedules import EDM, Rectified
from samplerbench.datasets.divided import PARTS, Divided
from samplerbench.datasets.empirical import Empirical
from samplerbench.datasets.file import from_file, read_points
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity


@pytest.fixture
def cloud(states):
    return 2 * states(300, 3) + 1


def ideal(points, x, alpha, sigma):
    """Σ r_k·x_k and log q, written out."""
    exponent = -(x[:, None] - alpha * points).square().sum(-1) / (2 * sigma**2)
    constant = math.log(len(points)) + 0.5 * x.shape[-1] * math.log(2 * math.pi * sigma**2)
    return exponent.softmax(-1) @ points, exponent.logsumexp(-1) - constant


def test_empirical_is_the_uniform_law(cloud):
    law, count = Empirical(cloud), 60_000
    x = law.draws(count, "train", 0)
    assert law.event_shape == (3,)
    assert x.dtype == float64
    index = torch.cdist(x, cloud).argmin(-1)
    assert torch.equal(x, cloud[index])
    chi_square = float((index.bincount(minlength=300) - count / 300).square().sum() / (count / 300))
    assert abs(chi_square - 299) < 5 * (2 * 299) ** 0.5


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 0.02), (0.6, 0.8), (1.0, 50.0), (1e-4, 1.0)])
def test_ideal_denoiser(cloud, states, alpha, sigma):
    x = (alpha * cloud[:40] + sigma * states(40, 3)).requires_grad_()
    model, at = Empirical(cloud).oracle(EDM(80.0)), Level(0.5, alpha, sigma)
    x0_hat, log_q = ideal(cloud, x, alpha, sigma)
    torch.testing.assert_close(model.denoiser(x, at), x0_hat, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.log_density(x, at), log_q, rtol=1e-9, atol=1e-9)
    (gradient,) = torch.autograd.grad(model.log_density(x, at).sum(), x)
    torch.testing.assert_close(model.score(x, at), gradient, rtol=1e-7, atol=1e-8 / sigma)


@pytest.mark.parametrize("sigma", mostly_slow([0.02, 0.5, 80.0], 1))
def test_no_state_depends_on_its_neighbours(states, sigma):
    """At its place in a batch, also where some states see few points and others see many."""
    points = torch.cat([states(2000, 128), 0.01 * states(200, 128)])
    model, at = Empirical(points).oracle(EDM(80.0)), Level(0.5, 1.0, sigma)
    x = points[::50] + sigma * torch.linspace(0, 1, 44)[:, None] * states(44, 128)
    other = x.clone()
    other[1::2] += sigma * states(22, 128)
    for name in ("denoiser", "log_density"):
        ours, theirs = (getattr(model, name)(batch, at) for batch in (x, other))
        assert torch.equal(ours[::2], theirs[::2])
        assert not torch.equal(ours[1::2], theirs[1::2])
    x0_hat, log_q = ideal(points, x, 1.0, sigma)
    torch.testing.assert_close(model.denoiser(x, at), x0_hat, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(model.log_density(x, at), log_q, rtol=1e-11, atol=1e-11)


def test_pieces_change_nothing(states, monkeypatch):
    """For several shapes of the batch, and if every state has its own level."""
    schedule, points = Rectified(), states(300, 3)
    whole = Empirical(points).oracle(schedule)
    for rows in (1, 7):
        monkeypatch.setattr("samplerbench.core.models.ENTRIES", 300 * rows)
        pieces = Empirical(points).oracle(schedule)
        t = torch.linspace(0.1, 0.9, 20, dtype=float64).reshape(4, 5, 1)
        cases = [(states(*shape), Level(0.5, 0.5, 0.5)) for shape in ((3,), (4, 5, 3), (0, 3))]
        cases.append((states(4, 5, 3), Level(t, *schedule(t))))
        for x, at in cases:
            for name in ("denoiser", "score", "log_density"):
                value, expected = (getattr(model, name)(x, at) for model in (pieces, whole))
                assert value.shape == (x.shape if name != "log_density" else x.shape[:-1])
                torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    assert pieces.denoiser(x.float(), at).dtype == torch.float32


@pytest.mark.parametrize("dim", mostly_slow([2, 40], 0))
def test_memory_is_bounded(states, dim):
    """10 000 points and 250 states: no new tensor has more than 16 MB."""
    sizes = [0]

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
            if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in inputs:
                sizes.append(out.untyped_storage().nbytes())
            return out

    points = torch.rand(10_000, dim, dtype=float64, generator=torch.Generator().manual_seed(0))
    model, x = Empirical(points).oracle(EDM(80.0)), points[:250] + states(250, dim)
    for sigma in (0.1, 5.0):
        with Sizes():
            model.denoiser(x, Level(0.5, 1.0, sigma))
            model.log_density(x, Level(0.5, 1.0, sigma))
    assert 1e6 < max(sizes) <= 2**24


@pytest.mark.parametrize("sigma", [0.1, 3.0])
def test_derivatives_of_many_dimensions(states, sigma):
    """Forward, by a dual number, as differences; and backward, as forward."""
    points, at = states(2100, 128), Level(0.5, 1.0, sigma)
    model = Empirical(points).oracle(EDM(80.0))
    x = (points[:6] + points[6:12]) / 2 + 0.01 * sigma**2 * states(6, 128)
    v = states(6, 128)
    for name in ("denoiser", "log_density"):
        f = functools.partial(getattr(model, name), level=at)
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(f(forward_ad.make_dual(x, v))).tangent
        h = 1e-5 * sigma**2
        differences = (f(x + h * v) - f(x - h * v)) / (2 * h)
        scale = float(differences.abs().max())
        torch.testing.assert_close(tangent, differences, rtol=1e-5, atol=1e-6 * scale)
        weights = states(*tangent.shape)
        state = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((f(state) * weights).sum(), state)
        torch.testing.assert_close((gradient * v).sum(), (tangent * weights).sum())


def test_identity_is_the_content(cloud):
    changed = cloud.clone()
    changed[7, 1] += 1e-12
    ids = {identity(Empirical(c)) for c in (cloud, changed, cloud[:-1], cloud.reshape(-1, 2))}
    assert len(ids) == 4
    assert identity(Empirical(cloud)) == identity(Empirical(cloud.clone()))
    assert Empirical(cloud) == Empirical(cloud.clone())
    assert identity(Divided(cloud)) != identity(Divided(cloud, train=0.6))
    assert identity(Divided(cloud)) != identity(Divided(changed))


def test_points_are_a_copy(cloud):
    law = Empirical(cloud)
    before = law.points.clone()
    cloud += 1
    assert torch.equal(law.points, before)


def test_workers_get_the_points(cloud):
    law = pickle.loads(pickle.dumps(Empirical(cloud)))
    assert torch.equal(law.points, cloud)
    data = pickle.loads(pickle.dumps(Divided(cloud)))
    assert torch.equal(data.draws(9, "floor", 1), Divided(cloud).draws(9, "floor", 1))


def test_parts_share_no_row(cloud):
    data = Divided(cloud)
    parts = [data.part(name) for name in PARTS]
    assert [len(part) for part in parts] == [150, 30, 60, 60]
    for one, two in combinations(parts, 2):
        assert not torch.isin(one, two).any()
    assert torch.equal(torch.cat(parts).sort(0).values, cloud.sort(0).values)
    assert not torch.equal(
        data.part("train"), cloud[:150]
    )  # a sorted file must not be cut in order


def test_draws_of_a_file(cloud):
    data = Divided(cloud)
    for purpose in PARTS:
        part = data.part(purpose)
        for seed in (0, 1):
            x = data.draws(25, purpose, seed)
            assert torch.isin(x, part).all()
            assert len(x.unique(dim=0)) == 25  # without replacement
            assert torch.equal(x, data.draws(25, purpose, seed))
        assert not torch.equal(data.draws(25, purpose, 0), data.draws(25, purpose, 1))
        whole = data.draws(len(part), purpose, 0)
        assert torch.equal(whole.sort(0).values, part.sort(0).values)
    assert torch.isin(data.sample(500, np.random.default_rng(0)), data.part("train")).all()
    assert torch.isin(data.draws(500, "start", 0), data.part("train")).all()


def test_more_rows_than_there_are(cloud):
    for purpose, key, count in (
        ("train", "n_train", 150),
        ("validation", "n_validation", 30),
        ("evaluation", "n_reference", 60),
        ("floor", "n_samples", 60),
    ):
        message = f"^{key}={count + 1}: must be at most {count}.*300 rows"
        with pytest.raises(InvalidSetting, match=message):
            Divided(cloud).draws(count + 1, purpose, 0)


def test_oracle_of_a_file_is_the_training_part(cloud, states):
    data, x = Divided(cloud), states(20, 3)
    x0_hat, _ = ideal(data.part("train"), x, 1.0, 0.7)
    actual = data.oracle(EDM(80.0)).denoiser(x, Level(0.5, 1.0, 0.7))
    torch.testing.assert_close(actual, x0_hat, rtol=1e-9, atol=1e-9)


def test_npy(tmp_path):
    for dtype in ("float64", "float32", "float16", "int32", "uint8", ">f8"):
        array = np.arange(40).reshape(20, 2).astype(dtype)
        np.save(tmp_path / "points.npy", array)
        data = from_file(str(tmp_path / "points.npy"))
        rows = torch.cat([data.part(name) for name in PARTS])
        assert rows.dtype == float64
        assert rows[rows[:, 0].argsort()].tolist() == array.tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv(tmp_path, end):
    for head in ("", "x,y\n", "\ufeffx,y\n", "\n", '"a, b",c\n'):
        lines = end.join(f"{k}, {k / 7!r}" for k in range(20)) + end + end
        (tmp_path / "points.CSV").write_bytes((head.replace("\n", end) + lines).encode())
        data = from_file(str(tmp_path / "points.CSV"))
        rows = torch.cat([data.part(name) for name in PARTS])
        assert rows[rows[:, 0].argsort()].tolist() == [[k, k / 7] for k in range(20)]


class Trap:
    """An object that reports when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


def refused(path, what):
    with pytest.raises(InvalidSetting, match=what) as error:
        from_file(str(path))
    assert error.value.field == "path"
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_arrays(tmp_path):
    for array, what in (
        (np.array([[Trap(), 1], [2, 3]], dtype=object), "object"),
        (np.arange(5.0), r"\(5,\), for one coordinate \(n, 1\)"),
        (np.zeros((4, 2, 2)), r"shape is \(4, 2, 2\)"),
        (np.zeros((0, 2)), r"shape is \(0, 2\)"),
        (np.zeros((5, 0)), r"shape is \(5, 0\)"),
        (np.zeros((1, 2)), r"shape is \(1, 2\)"),
        (np.array(3.0), r"shape is \(\)"),
        (np.array([[0, 1], [2, math.nan], [math.inf, 0]]), "2 rows have NaN .* row 1"),
        (np.array([["a", "b"], ["c", "d"]]), "type <U1"),
        (np.array([[0.0, 1.0], [2.0, -1e15]]), r"row 1 has an entry of 1e\+15 or more"),
        (np.ones((4, 2)), "rows are all equal"),
        (np.array([[1j, 2], [3, 4]]), "type complex128"),
        (np.array([[True, False], [True, True]]), "type bool"),
    ):
        np.save(tmp_path / "bad.npy", array, allow_pickle=True)
        refused(tmp_path / "bad.npy", what)


def test_bad_files(tmp_path):
    for name, content, what in (
        ("empty.npy", b"", "numpy.save"),
        ("text.npy", b"1,2\n3,4\n", "magic string is not correct"),
        ("pickle.npy", b"\x80\x04K\x01.", "numpy.save"),
        ("cut.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'", "numpy.save"),
        ("empty.csv", b"", "it is empty"),
        ("blank.csv", b"\n\n", "it is empty"),
        ("header.csv", b"x,y\n", "no rows below the header"),
        ("one.csv", b"x,y\n1,2\n", r"shape is \(1, 2\)"),
        ("text.csv", b"x,y\n1,2\n3,four\n", "row 3 has the entry 'four' in column y; columns=x"),
        ("gap.csv", b"x,y,z\n1,,2\n3,4,5\n", "row 2 has the entry '' in column y; columns=x,z"),
        ("hole.csv", b"1,2\n3,\n", "row 2 has the entry ''"),
        ("thousands.csv", b"1,2\n1_000,4\n", "row 2 has the entry '1_000'"),
        ("first.csv", b"1_000,2_000\n3,4\n5,6\n", "row 1 has the entry '1_000'"),
        ("mixed.csv", b"1,y\n1,2\n3,4\n", "row 1 has the entry 'y'"),
        ("ragged.csv", b"1,2\n3,4,5\n", "row 2 has 3 entries, not 2"),
        ("nan.csv", b"1,2\n3,nan\n", "1 row has NaN"),
        ("huge.csv", b"1,2\n3,1e999\n", "1 row has NaN or infinite"),
        ("semicolon.csv", b"1;2\n3;4\n", "row 2 has the entry '3;4'"),
        ("index.csv", b",x,y\n0,1,2\n1,3,4\n", "index=False"),
        ("binary.csv", b"\xff\xfe\x00\x01", "a table of numbers"),
        ("points.xls", b"1,2\n3,4\n", "a file of .npy, .npz, .pt, .csv, .tsv, .txt, .parquet"),
        ("points", b"1,2\n3,4\n", "a file of .npy"),
        ("numbers.csv", b",0,1\n0,1,2\n1,3,4\n", "index=False"),
        ("bad.parquet", b"nothing", "a table of numbers"),
        ("bad.pt", b"nothing", "a tensor, or tensors by name, saved by torch.save$"),
        ("words.pt", b"hello world", "a tensor, or tensors by name, saved by torch.save$"),
        ("missing.csv", None, "a file that exists"),
        ("missing.npy", None, "a file that exists"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, what)


def test_a_file_that_fails_without_a_word(tmp_path, monkeypatch):
    def fail(path):
        raise MemoryError

    monkeypatch.setattr("samplerbench.datasets.file._read_npy", fail)
    (tmp_path / "points.npy").touch()
    refused(tmp_path / "points.npy", r": MemoryError$")


def test_an_archive_is_not_an_array(tmp_path):
    np.savez(tmp_path / "several.npz", a=np.zeros((3, 2)))
    path = (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    refused(path, "magic string is not correct")
    (tmp_path / "folder.npy").mkdir()
    refused(tmp_path / "folder.npy", "a file: this is a folder")


def test_refusals():
    for build, field in (
        (lambda: Empirical(torch.zeros(3)), "rows"),
        (lambda: Empirical(torch.zeros(0, 2)), "rows"),
        (lambda: Empirical(torch.tensor([[1.0, math.nan]])), "rows"),
        (lambda: Divided(torch.zeros(1, 2)), "rows"),
        (lambda: Divided(torch.zeros(9, 2), train=-0.1), "train"),
        (lambda: Divided(torch.zeros(9, 2), train=0.0), "train"),
        (lambda: Divided(torch.zeros(9, 2), validation=math.nan), "validation"),
        (lambda: Divided(torch.zeros(9, 2), train=0.9), "evaluation"),
    ):
        with refused_in_one_line(field=field):
            build()


def test_all_rows_can_be_given_away(cloud):
    data = Divided(cloud, train=0.7, validation=0.1, evaluation=0.2)
    assert [len(data.part(name)) for name in PARTS] == [210, 30, 60, 0]
    two = Divided(cloud[:2])
    assert len(two.part("train")) == 1


def test_sets_of_the_floor_share_no_row(cloud):
    data = Divided(cloud)
    count = len(data.part("floor")) // 3
    assert data.floor_sets(count) >= 3
    sets = [data.draws(count, "floor", 0, repetition) for repetition in range(3)]
    assert len({tuple(row) for rows in sets for row in rows.tolist()}) == 3 * count
    with pytest.raises(InvalidSetting, match=r"floor_repetitions=\d+: .* sets of"):
        data.draws(count, "floor", 0, data.floor_sets(count))


def test_every_format_holds_the_same_points(tmp_path):
    points = np.random.default_rng(0).normal(size=(20, 2))
    table = pd.DataFrame(points)
    np.save(tmp_path / "a.npy", points)
    np.savez(tmp_path / "a.npz", points)
    torch.save(torch.from_numpy(points), tmp_path / "a.pt")
    torch.save({"x": torch.from_numpy(points), "n": 3}, tmp_path / "b.pt")
    table.to_csv(tmp_path / "a.csv", index=False)  # with the header 0,1
    table.to_csv(tmp_path / "a.tsv", index=False, header=False, sep="\t")
    np.savetxt(tmp_path / "a.txt", points, header="made by hand", fmt="%.17g")
    np.savetxt(tmp_path / "b.txt", points, delimiter=", ", fmt="%.17g")
    table.rename(columns=str).to_parquet(tmp_path / "a.parquet")
    for name in sorted(path.name for path in tmp_path.iterdir()):
        assert np.array_equal(read_points(str(tmp_path / name)).numpy(), points), name
    torch.save(torch.ones(3, 2, dtype=torch.bfloat16), tmp_path / "c.pt")
    assert read_points(str(tmp_path / "c.pt")).tolist() == [[1, 1]] * 3
    with pytest.raises(InvalidSetting, match=r"array=x: must be left out: .* one tensor"):
        read_points(str(tmp_path / "a.pt"), array="x")


def test_a_tensor_file_executes_nothing(tmp_path):
    torch.save({"x": torch.ones(3, 2), "path": tmp_path}, tmp_path / "a.pt")
    with pytest.raises(InvalidSetting, match="a tensor, or tensors by name"):
        read_points(str(tmp_path / "a.pt"))


def test_arrays_of_archives_and_columns_by_name(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "two.npz", x=points, y=points[:, :2])
    rows = "".join(",".join(map(repr, row.tolist())) + "\n" for row in points)
    (tmp_path / "three.csv").write_text(f"# made by hand\na,b.1,b.2\n{rows}")
    for name, settings, wanted in (
        ("two.npz", {"array": "y"}, points[:, :2]),
        ("three.csv", {"columns": "b,a"}, points[:, [1, 2, 0]]),
        ("three.csv", {"columns": "b.2"}, points[:, 2:]),
        ("three.csv", {}, points),
    ):
        assert np.array_equal(read_points(str(tmp_path / name), **settings).numpy(), wanted)
    named = pd.DataFrame(points, columns=["x", "y", "z"]).assign(name="run 1")
    named.to_csv(tmp_path / "words.csv")  # also with the index of pandas
    named.to_parquet(tmp_path / "words.parquet")
    for name in ("words.csv", "words.parquet"):  # only the chosen columns must be numbers
        chosen = read_points(str(tmp_path / name), columns="z,x").numpy()
        assert np.array_equal(chosen, points[:, [2, 0]])
    with pytest.raises(InvalidSetting, match="in column name; columns=x,y,z leaves it out"):
        read_points(str(tmp_path / "words.parquet"))
    with pytest.raises(InvalidSetting, match=r"array=: must be given, one of those in .*: x, y"):
        from_file(str(tmp_path / "two.npz"))
    (tmp_path / "bad.npz").write_bytes(b"PK nothing")
    with pytest.raises(InvalidSetting, match=r"arrays saved by numpy\.savez"):
        from_file(str(tmp_path / "bad.npz"))
