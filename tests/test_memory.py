"""The memory of one operation is there for the next one; imports look for no garbage."""

import gc
import inspect
import resource
import subprocess
import sys

import pytest
import torch

from samplerbench.memory import first_import, keep_freed_memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc only")


def faults():
    """The page faults of 64 tensors of 1 MiB, 16 384 pages, at the second time."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(2**17, dtype=torch.float64) for _ in range(64)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults_of(prepared):
    """`faults()` in a process of its own: other threads and earlier tests also cause faults."""
    code = f"import resource, torch\n{prepared}\n{inspect.getsource(faults)}\nprint(faults())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(out.stdout)


@linux
def test_glibc_takes_the_limits():
    assert keep_freed_memory()


@linux
@pytest.mark.slow
def test_tensors_get_the_memory_of_those_before_them():
    assert faults_of("") > 12000
    assert (
        faults_of("from samplerbench.memory import keep_freed_memory; keep_freed_memory()") < 6000
    )


def test_the_first_import_looks_for_no_garbage_and_a_second_one_changes_nothing():
    gc.unfreeze()
    try:
        with first_import("a package"):
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 1000
        gc.unfreeze()
        with first_import("a package"):
            assert gc.isenabled()
        assert gc.get_freeze_count() == 0
        with pytest.raises(ImportError), first_import("another package"):
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
