"""The cache: stored results are not computed again, damaged ones are reported and replaced."""

import io
import json
import shutil
import struct
import threading
import zipfile
from dataclasses import replace

import pytest
from filelock import FileLock

from helpers import sweep_of
from samplerbench.bench.budget.run import Budget
from samplerbench.bench.cache import Cache
from samplerbench.bench.sweep import Samples, Sweep
from samplerbench.core.grids import uniform
from samplerbench.core.schedules import EDM
from samplerbench.datasets.gaussian import gaussian
from samplerbench.files import sealed, write_atomically
from samplerbench.metrics.sliced import Sliced
from samplerbench.samplers.ddim import DDIM
from samplerbench.samplers.heun import Heun

LAW = gaussian((0.0, 1.0), ((1.0, 0.0), (0.0, 2.0)))
SCHEDULE = EDM(10.0)


SETTINGS = {
    "samplers": [("ddim", DDIM(0.0)), ("ddim", DDIM(1.0)), ("heun", Heun())],
    "schedule": SCHEDULE,
    "grid": uniform,
    "metrics": {"sliced": Sliced(directions=8)},
    "n_samples": 50,
    "repetitions": 2,
    "floor_repetitions": 2,
    "block": 50,
}


def cached(cache, steps=(2, 4), **changes):
    settings = {"steps": steps, "recall": cache.recall, **SETTINGS, **changes}
    return sweep_of(LAW, **settings)


def plain(rows):
    """The rows with None in place of NaN, since NaN is not equal to itself."""
    rows = list(rows)
    nans = ({n: None for n, v in vars(row).items() if v != v} for row in rows)
    return [replace(row, **nan) for row, nan in zip(rows, nans, strict=True)]


def forget_clocks(rows):
    return [replace(row, seconds=0.0) for row in plain(rows)]


def value_file(cache, row):
    return next(cache.directory.glob(f"values/*/{row.cell_id}.json"))


@pytest.fixture
def counted(monkeypatch):
    """The cells whose samples were made."""
    made = []
    draw = Sweep.draw

    def counting(sweep: Sweep, cell) -> Samples:
        made.append(cell)
        return draw(sweep, cell)

    monkeypatch.setattr(Sweep, "draw", counting)
    return made


def test_a_sweep_again_draws_nothing_and_a_wider_one_draws_the_rest(tmp_path, counted):
    cache = Cache(tmp_path)
    first = cached(cache).run(cache.keep)
    assert len(counted) == 2 + 2 * 3 * 2 * 2
    counted.clear()
    again = Cache(tmp_path)
    second = cached(again).run(again.keep)
    assert plain(second) == plain(first)  # the clocks too: they are of the work that was done
    assert counted == []
    assert len(again.recalled) == len(first)
    wider = Cache(tmp_path)
    rows = cached(wider, steps=(2, 3, 4)).run(wider.keep)
    assert {cell.steps for cell in counted} == {3}
    assert len(counted) == 2 * 3 * 2
    assert plain(row for row in rows if row.steps != 3) == plain(first)


def test_names_are_of_the_run_that_asks(tmp_path, counted):
    cache = Cache(tmp_path)
    sweep = cached(cache)
    sweep.run(cache.keep)
    counted.clear()
    other = replace(sweep, samplers=[("mine", DDIM(0.0))], labels=replace(sweep.labels, run="b"))
    rows = other.run(cache.keep)
    assert counted == []
    assert {row.sampler for row in rows} == {"", "mine"}
    assert {row.run for row in rows} == {"b"}


def test_a_budget_again_draws_nothing_and_fills_holes(tmp_path, counted):
    cache = Cache(tmp_path)
    first = Budget(cached(cache), converged_steps=8, tolerance=0.5).run(cache.keep)
    counted.clear()
    again = Cache(tmp_path)
    found = Budget(cached(again), converged_steps=8, tolerance=0.5).run(again.keep)
    assert plain(found) == plain(first)
    assert counted == []
    between = [row for row in first if row.reference == "converged"]
    value_file(again, between[0]).unlink()
    rows = Budget(cached(again), converged_steps=8, tolerance=0.5).run(again.keep)
    assert len(counted) == 2  # the cell and its neighbour
    assert forget_clocks(rows) == forget_clocks(first)


#: Changes of a value's file that make it unusable.
SPOILS = [
    lambda text: text[: len(text) // 2],
    lambda text: "",
    lambda text: "[1, 2]",
    lambda text: "[" * 100_000,
    lambda text: text.replace('"n_samples"', '"samples"'),
    lambda text: json.dumps(json.loads(text) | {"cell_id": "0" * 16}),
    lambda text: json.dumps(json.loads(text) | {"value": "much"}),
    lambda text: json.dumps(json.loads(text) | {"value": None}),
    lambda text: json.dumps(json.loads(text) | {"value": 0.25}),
    lambda text: json.dumps(json.loads(text) | {"sha256": None}),
]


def test_spoilt_values_are_named_and_computed_again(tmp_path, caplog, counted):
    cache = Cache(tmp_path)
    first = cached(cache).run(cache.keep)
    paths = [value_file(cache, row) for row in first[2 : 2 + len(SPOILS)]]
    whole = [path.read_text() for path in paths]
    for path, text, spoil in zip(paths, whole, SPOILS, strict=True):
        path.write_text(spoil(text))
    counted.clear()
    again = Cache(tmp_path)
    assert forget_clocks(cached(again).run(again.keep)) == forget_clocks(first)
    assert len(counted) == len(SPOILS)
    for path, text in zip(paths, whole, strict=True):
        assert path.name in caplog.text
        assert json.loads(path.read_text())["value"] == json.loads(text)["value"]


def test_a_value_under_the_name_of_another_is_not_used(tmp_path, caplog):
    cache = Cache(tmp_path)
    one, other = cached(cache).run(cache.keep)[:2]
    assert one.cell_id != other.cell_id
    value_file(cache, one).write_bytes(value_file(cache, other).read_bytes())
    assert Cache(tmp_path).recall(one.cell_id) is None
    assert "it contains another value" in caplog.text


def test_refresh_knows_nothing_and_replaces(tmp_path, counted):
    cache = Cache(tmp_path)
    row = cached(cache).run(cache.keep)[0]
    cache.keep(replace(row, value=-1.0))
    fresh = Cache(tmp_path, refresh=True)
    counted.clear()
    cached(fresh).run(fresh.keep)
    assert len(counted) > 0
    kept = Cache(tmp_path).recall(row.cell_id)
    assert forget_clocks([kept]) == forget_clocks([row])


def test_failures_and_incompatible_cells_are_not_kept(tmp_path):
    cache = Cache(tmp_path)
    row = cached(cache).run(cache.keep)[0]
    for status in ("failed", "incompatible"):
        cache.keep(replace(row, cell_id="f" * 16, status=status))
        assert cache.recall("f" * 16) is None


def test_where_nothing_can_be_written_work_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    rows = cached(cache).run(cache.keep)
    assert {row.status for row in rows} == {"ok"}
    assert caplog.text.count("not kept there") == 1


def test_one_process_trains_while_others_wait(tmp_path):
    """Threads here; across processes it is the same lock, see tests/app/test_survival.py."""
    order = []
    inside = threading.Event()

    def other():
        with Cache(tmp_path).training("abc", lambda: order.append("waits")) as place:
            order.append("second")
            assert (place / "left").exists()

    with Cache(tmp_path).training("abc", lambda: order.append("no")) as place:
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(0.3)
        order.append("first")
        (place / "left").touch()
    thread.join()
    assert order == ["waits", "first", "second"]


def test_a_folder_that_was_pruned_while_a_job_waited_is_there_again(tmp_path):
    cache = Cache(tmp_path)
    place = cache.place("abc")
    place.mkdir(parents=True)
    pruning = FileLock(place.with_suffix(".lock"))
    pruning.acquire()

    def wait():
        shutil.rmtree(place)
        pruning.release()

    with cache.training("abc", wait) as folder:
        (folder / "left").touch()
    assert (place / "left").exists()


FILES = {"budget_energy.png": b"\x89PNG", "paths x.gif": b"GIF", "score_errors.csv": b"a,b\n"}
ARCHIVE = "0123456789abcdef"


def archive_file(cache):
    return next(cache.directory.glob("archives/01/*"))


def recalled(cache, archive=ARCHIVE):
    return cache.recall_archive(archive, lambda files: None)


def test_files_come_back_as_they_were(tmp_path):
    cache = Cache(tmp_path)
    assert recalled(cache) is None
    cache.keep_archive(ARCHIVE, FILES)
    assert list(recalled(Cache(tmp_path)).items()) == list(FILES.items())
    assert recalled(Cache(tmp_path, refresh=True)) is None
    with zipfile.ZipFile(archive_file(cache)) as archive:  # other programs read it too
        assert archive.namelist() == list(FILES)


def test_a_picture_that_draws_nothing_is_known_too(tmp_path):
    cache = Cache(tmp_path)
    cache.keep_archive(ARCHIVE, {})
    assert recalled(cache) == {}


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_spoilt_archive_is_named_and_put_aside(tmp_path, caplog, place):
    cache = Cache(tmp_path)
    cache.keep_archive(ARCHIVE, FILES)
    path = archive_file(cache)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert recalled(cache) is None
    assert path.name in caplog.text
    assert path.with_name(f"{path.name}.unusable").read_bytes() == content
    cache.keep_archive(ARCHIVE, FILES)
    assert recalled(cache) == FILES


def test_an_archive_under_another_name_is_not_believed(tmp_path, caplog):
    cache = Cache(tmp_path)
    cache.keep_archive(ARCHIVE, FILES)
    path = archive_file(cache)
    path.rename(path.with_name("01ffffffffffffff.zip"))
    assert recalled(cache, "01ffffffffffffff") is None
    assert "it contains other files" in caplog.text


def crafted(folder, content):
    """An archive of somebody who can write a shared cache: anybody can make its digest."""
    path = folder / "archives" / "01" / f"{ARCHIVE}.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(sealed(content))


def zipped(compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.comment = ARCHIVE.encode()
        archive.writestr("a.png", bytes(10**6))
    return buffer.getvalue()


def test_an_archive_that_grows_is_not_unpacked(tmp_path, caplog):
    crafted(tmp_path, zipped(zipfile.ZIP_DEFLATED))
    assert recalled(Cache(tmp_path)) is None
    assert "it is compressed" in caplog.text


def test_whatever_an_archive_raises_it_is_put_aside(tmp_path, caplog):
    whole = zipped()
    directory = whole.rindex(b"PK\x01\x02")  # where it claims more bytes than it has
    larger = whole[: directory + 20] + struct.pack("<II", 10**9, 10**9) + whole[directory + 28 :]
    crafted(tmp_path, larger)
    assert recalled(Cache(tmp_path)) is None
    assert f"{ARCHIVE}.zip is not usable" in caplog.text


def test_what_an_archive_holds_is_asked_for(tmp_path, caplog):
    cache = Cache(tmp_path)
    cache.keep_archive(ARCHIVE, FILES)

    def refuse(files):
        assert files == FILES
        raise ValueError("no such files")

    assert cache.recall_archive(ARCHIVE, refuse) is None
    assert "no such files" in caplog.text


def test_where_no_archive_can_be_written_work_goes_on(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    for _ in range(2):
        cache.keep_archive(ARCHIVE, FILES)
    assert caplog.text.count("not kept there") == 1


def test_what_is_pruned_while_it_is_written_is_written_again(tmp_path, monkeypatch, caplog):
    import samplerbench.bench.cache as module

    calls = []

    def pruned_once(path, content):
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(2, "No such file or directory")
        write_atomically(path, content)

    monkeypatch.setattr(module, "write_atomically", pruned_once)
    cache = Cache(tmp_path)
    cache.keep_archive(ARCHIVE, FILES)
    assert recalled(cache) == FILES
    assert caplog.text == ""
