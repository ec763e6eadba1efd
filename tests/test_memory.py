"""The memory of one operation is there for the next one."""

import subprocess
import sys

import pytest

#: Prints the page faults of four times 64 tensors of 1 MiB (16 384 pages), before and after.
FAULTS = """
import resource, torch
from samplerbench.memory import keep_freed_memory

def faults():
    for _ in range(5):
        tensors = [torch.ones(2**17, dtype=torch.float64) for _ in range(64)]
        del tensors
        yield resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for kept in (False, keep_freed_memory):
    kept = kept and kept()
    first, *_, last = faults()
    print(kept, last - first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_tensors_get_the_memory_of_those_before_them():
    script = [sys.executable, "-c", FAULTS]
    out = subprocess.run(script, capture_output=True, text=True, check=True).stdout.split()
    assert out[::2] == ["False", "True"]
    assert int(out[1]) > 5000
    assert int(out[3]) < 1000
