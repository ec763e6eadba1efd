"""Any typed or stored input gives a value, or one line and status 2; never a traceback or a hang.

Keys come from the composed config itself, so that a new one is tested the day it is there. Numbers
that ask for more work than a test can wait for, but that a machine can do, are left out: ten
thousand steps of a network are the user's right. Numbers that no machine can do are in.
"""

import contextlib
import faulthandler
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from samplerbench.app.config.folders import conf_directory
from samplerbench.app.folder.runs import open_run
from samplerbench.app.job.rebuild import rebuild
from samplerbench.app.job.run import run as run_job
from samplerbench.app.main import main
from samplerbench.bench.cell import Row
from samplerbench.bench.store import Store
from samplerbench.errors import InvalidSetting, RunFailed

pytestmark = pytest.mark.slow

BASE = ["experiment=tiny", "logger=none", "denoiser=oracle", "steps=2", "n_samples=16", "block=16"]
BASE += ["n_reference=32", "repetitions=1", "floor_repetitions=0", "sampler.ddim.eta=0"]
BASE += ["start=exact", "workers=1", "metric=[sliced]", "cache=off", "n_train=50"]
BASE += ["n_validation=20"]
#: The same with a training of three steps.
LEARNED = [*BASE, "denoiser=learned", "trainer.steps=3"]

SECONDS = 30  # of the processor for an example, most of which take a tenth; a busy one takes longer


class Hang(BaseException):
    """An example took too long."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Ends an example that takes too long; if one of its threads hangs, ends the whole process."""

    def ring(number, frame):
        raise Hang

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(20 * SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def empty_folder() -> Iterator[Path]:
    """An empty current folder; hypothesis runs many examples in one test."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def bounded(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def typed(*words: str) -> tuple[int, str, str]:
    """A command line: status, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["samplerbench", *words]
    try:
        with watched(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
        status = 0
    except SystemExit as leaving:
        code = leaving.code
        status = code if isinstance(code, int) else 1 if code else 0
    except BaseException as error:
        pytest.fail(f"{words}: {type(error).__name__}\n{traceback.format_exc()[-3000:]}")
    finally:
        sys.argv = before
    return status, out.getvalue(), err.getvalue()


def check(status: int, err: str, folder: Path, words: object) -> None:
    """Conditions that hold after any command."""
    assert status in (0, 1, 2), (words, err)
    assert "Traceback" not in err, (words, err)
    # in a multirun Hydra says a line of its own before ours, for each job that failed
    own = "Error executing job with overrides"
    lines = [line for line in err.strip().splitlines() if not line.startswith(own)]
    assert status == 0 or len(lines) == 1, (words, status, err)
    assert "Error executing job" not in err, (words, err)
    for path in folder.rglob("status.json"):
        run = open_run(path.parent)
        if status == 2:
            assert run.state != "finished" or len(run.table()) == run.values, words
        if run.state == "finished":
            assert len(run.table()) == run.values, words
            if run.values:
                assert len(pd.read_parquet(path.parent / "cells.parquet")) == run.values, words


def leaves(node: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    for name, value in node.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")


def composed(words):
    with initialize_config_dir(str(conf_directory()), version_base="1.3"):
        config = compose("config", words, return_hydra_config=True)
    hydra = OmegaConf.to_container(config.hydra, resolve=False)
    with open_dict(config):
        del config["hydra"]
    return OmegaConf.to_container(config, resolve=False), hydra


#: Everything whose members or settings could be wrong; debug only shows what is.
GROUPS = sorted(path.name for path in conf_directory().iterdir() if path.is_dir())
GROUPS = [name for name in GROUPS if name not in ("hydra", "experiment")]
MEMBERS = {
    group: sorted(path.stem for path in (conf_directory() / group).glob("*.yaml"))
    for group in GROUPS
}

NUMBERS = st.one_of(
    st.integers(-3, 8),
    st.sampled_from([2**31, 10**9, 10**12, 2**63, 2**64, 10**30, -(10**9), -(10**30)]),
    st.floats(-3, 3),
    st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324, 1e-9]),
)
WORDS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["", " ", "../../x", "/etc/passwd", "/", "~", "[/b]", "\u202eä\n", "\0", "nan", "1", "on"]
    ),
    st.sampled_from(["${seed}", "${nope}", "${", "${oc.env:NO_SUCH}", "${steps}", "???", "null"]),
    st.sampled_from(["samplerbench.samplers.euler.Euler", "os.system", "learned", "exact", "cuda"]),
)
PLAIN = st.one_of(NUMBERS, WORDS, st.booleans(), st.none())
VALUES = st.one_of(
    PLAIN,
    st.lists(PLAIN, max_size=3),
    st.dictionaries(st.sampled_from(["a", "_target_", "eta", ""]), PLAIN, max_size=2),
    st.lists(st.lists(NUMBERS, max_size=2), max_size=2),
)


@pytest.fixture(scope="module")
def configs():
    return {name: composed(words) for name, words in {"oracle": BASE, "learned": LEARNED}.items()}


def ended(plain, hydra, changes) -> str:
    """The end of a job of a changed config: ok or its message; anything else is a failure."""
    config = OmegaConf.create(plain)
    for key, value in changes:
        try:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
        except Exception:
            return "Hydra refuses it"
    with empty_folder() as folder:
        settled = OmegaConf.create(hydra)
        settled.runtime.output_dir, settled.mode = str(folder / "run"), "RUN"
        settled.job.num = 0
        (folder / "run").mkdir()
        HydraConfig.instance().cfg = OmegaConf.create({"hydra": settled})
        try:
            with watched(), contextlib.redirect_stdout(io.StringIO()):
                run_job(config)
        except InvalidSetting as error:
            assert not (folder / "run" / "config.yaml").exists(), (changes, "after work began")
            return str(error)
        except RunFailed as error:
            if "not finite" in str(error):  # a failed training leaves no weights
                assert not list(folder.rglob("model.safetensors")), changes
                return str(error)
            table = pd.read_parquet(folder / "run" / "cells.parquet")
            assert len(table) == open_run(folder / "run").values, changes
            return str(error)
        except BaseException as error:
            said = traceback.format_exc()[-3000:]
            if type(error).__module__.startswith("omegaconf"):
                return said
            pytest.fail(f"{changes}: {type(error).__name__}\n{said}")
        finally:
            HydraConfig.instance().cfg = None
        check(0, "", folder, changes)
        return "ok"


def changed(config: DictConfig):
    """One or several keys of a config, with values."""
    keys = [key for key in leaves(config) if key != "debug"]
    return st.lists(st.tuples(st.sampled_from(keys), VALUES), min_size=1, max_size=3)


@bounded(60)
@given(data=st.data())
def test_any_value_of_any_key(configs, data):
    plain, hydra = configs[data.draw(st.sampled_from(sorted(configs)))]
    ended(plain, hydra, data.draw(changed(plain)))


def quoted(value: object) -> str:
    """A value as people write it on a command line."""
    return value if isinstance(value, str) else json.dumps(value)


KEYS = sorted(leaves(composed(BASE)[0]))
ODD = "steps ~sampler =1 +x.y=1 a/b@c=1 +sampler@x=heun steps=[ steps={ ' seed=1,2 steps=range(3) "
ODD += "experiment=nope seed=seed"
OVERRIDES = st.one_of(
    st.tuples(st.sampled_from(["", "+", "++", "~"]), st.sampled_from(KEYS), VALUES).map(
        lambda word: f"{word[0]}{word[1]}={quoted(word[2])}"
    ),
    st.sampled_from([(group, name) for group in GROUPS for name in MEMBERS[group]]).map(
        lambda chosen: "=".join(chosen)
    ),
    st.tuples(st.sampled_from(GROUPS), VALUES).map(lambda word: f"{word[0]}={quoted(word[1])}"),
    st.sampled_from(ODD.split()),
    WORDS.filter(lambda word: not word.startswith("-") and "\0" not in word),
)
#: A user may write a run anywhere; tests stay in their folder.
SAFE = OVERRIDES.filter(lambda word: "\0" not in word and "cache" not in word)


@bounded(30)
@given(words=st.lists(SAFE, min_size=1, max_size=4), multirun=st.booleans())
def test_any_words_after_the_command(words, multirun):
    with empty_folder() as folder:
        status, _, err = typed(*["-m"] * multirun, *BASE, *words)
        check(status, err, folder, words)


@pytest.fixture(scope="module")
def stored(finished, tmp_path_factory):
    """A finished run of a trained model."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("stored") / "run")


COMMANDS = {
    "score": "a.npy no.csv a.npy= metric=sliced dataset=gaussian n_reference=9 seed=-1 "
    "reference=a.npy reference= metric=[] dataset=null n_reference=0 dataset.path=1 "
    "metric.sliced.directions=0 dataset=gaussian_mixture",
    "report": "RUN . out=page out= out=/ panels=false panels=7 --compare nowhere --x",
    "sample": "RUN sampler=ddim sampler=nope steps=2 steps=-1 n=3 n=0 n=1e3 out=a.npy out=b.npy "
    "out=b --every --every=2 start=prior start=x denoiser=oracle denoiser= seed=-1 seed=[ "
    "device=moon grid=uniform grid.rho=nan sampler.eta=1 sampler.eta=[] sampler.x=1 "
    "n=99999999999999",
    "cache": "prune list days=0 days=x days= days=nan cache_dir=. days=-1 cache_dir=nowhere "
    "days=9e999 days=٣ x",
    "check": "nope a.b samplerbench.nope.X os.system . .. heun. .heun",
    "list": "samplers nope --config-dir nowhere . -x metrics s",
    "cite": "RUN . nowhere",
}


def words_of(name):
    known = st.sampled_from(COMMANDS[name].split())
    # of `check` a word without a dot is a sampler that is measured for seconds
    other = WORDS.filter(lambda word: "\0" not in word)
    wide = st.one_of(known, known, known, other, other.map("trusted={}".format))
    return st.tuples(st.just(name), st.lists(wide, max_size=7))


@pytest.fixture(scope="module")
def run(stored):
    """The same, with a file of samples."""
    np.save(stored / "a.npy", np.random.default_rng(0).standard_normal((40, 2)))
    return stored


# without a word `check` measures all samplers, which takes minutes
LINES = st.sampled_from(sorted(COMMANDS)).flatmap(words_of)
LINES = LINES.filter(lambda line: line[0] != "check" or any("=" not in w for w in line[1]))


@bounded(120)
@given(line=LINES)
def test_any_words_of_the_other_commands(run, line):
    name, words = line
    with empty_folder() as folder:
        shutil.copy(run / "a.npy", folder)
        before = (folder / "a.npy").read_bytes()
        status, _, err = typed(name, *(str(run) if word == "RUN" else word for word in words))
        check(status, err, folder, (name, words))
        assert (folder / "a.npy").read_bytes() == before, words
        if status == 2:
            assert {path.name for path in folder.iterdir()} == {"a.npy"}, (name, words)


STORED = ["config.yaml", "run.json", "status.json", "cells", "cells.parquet", "losses.csv"]
JSON = st.recursive(
    st.one_of(PLAIN, st.floats()), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)


@st.composite
def damages(draw):
    """A stored file that is cut, garbled, emptied, or complete with other values."""
    name = draw(st.sampled_from(STORED))
    kind = draw(st.sampled_from(["cut", "bytes", "flip", "empty", "value", "gone", "folder"]))
    return name, kind, draw(st.floats(0, 1)), draw(st.binary(max_size=20)), draw(JSON)


def damage(path: Path, kind: str, where: float, content: bytes, value: object) -> None:
    whole = path.read_bytes()
    place = int(where * len(whole))
    if kind == "gone":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "value" and path.suffix == ".json":
        record = json.loads(whole)
        record[list(record)[int(where * (len(record) - 1))]] = value
        path.write_text(json.dumps(record))
    elif kind == "value" and path.suffix == ".yaml":
        config = OmegaConf.to_container(OmegaConf.load(path))
        config[list(config)[int(where * (len(config) - 1))]] = value
        with contextlib.suppress(Exception):  # what cannot be written cannot be read
            path.write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    else:
        path.write_bytes(
            {
                "cut": whole[:place],
                "flip": whole[:place]
                + bytes(byte ^ 255 for byte in whole[place : place + 1])
                + whole[place + 1 :],
                "bytes": whole[:place] + content + whole[place:],
            }.get(kind, b"")
        )


@bounded(30)
@given(spoilt=st.lists(damages(), min_size=1, max_size=4))
def test_a_spoilt_run_is_read_as_far_as_it_goes(stored, spoilt):
    with empty_folder() as folder:
        copy = shutil.copytree(stored, folder / "run")
        for name, *how in spoilt:
            path = copy / name
            path = sorted(path.iterdir())[0] if path.is_dir() and name == "cells" else path
            if path.is_file():
                damage(path, *how)
        before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        with watched():
            table, problems = Store(copy).readable()
            assert list(table.columns) == list(Row.__dataclass_fields__)
            assert all("\n" not in line for line in problems)
            with contextlib.suppress(InvalidSetting):
                rebuild(open_run(copy))
        for words in (("report", "run", "out=page", "panels=false"), ("cite", "run")):
            status, _, err = typed(*words)
            check(status, err, folder / "page", (words, spoilt))
        after = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
        assert after == before
