"""What imports leave behind is kept from the collector, once."""

import gc
import subprocess
import sys

import pytest

from samplerbench.app.startup import importing


@pytest.fixture
def collector():
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_while_modules_are_imported(collector, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > before


def test_a_second_job_s_leavings_are_collected(collector, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", sys)
    before = gc.get_freeze_count()
    with importing():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before


def test_it_is_on_again_where_an_import_fails(collector, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()


def test_who_wants_no_collector_has_none(collector, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()


@pytest.mark.parametrize("words", ["list samplers datasets", "check --help"])
def test_nobody_to_read_the_output_is_no_defect(words):
    """Who reads has left (status 1), or the output was closed from the beginning."""
    command = [sys.executable, "-m", "samplerbench", *words.split()]
    left = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    left.stdout.close()
    assert left.stderr.read() == b""
    assert left.wait() == 1
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
