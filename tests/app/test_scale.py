"""A cell of a million samples fits into two gigabytes, everything included."""

import subprocess
import sys

import pytest

#: Runs a command and prints the largest memory of the process, in kB. `ru_maxrss` would not do: it
#: begins with the memory of the process that starts the command.
MEASURED = """
import runpy, sys
sys.argv[0] = "samplerbench"
try:
    runpy.run_module("samplerbench", run_name="__main__")
except SystemExit as leaving:
    assert not leaving.code, leaving.code
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("metric", ["max_sliced_certified", "max_sliced"])
def test_a_million_samples_in_two_gigabytes(tmp_path, metric):
    words = "denoiser=oracle start=prior steps=[4] repetitions=1 floor_repetitions=1 workers=2"
    cells = "sampler.ddim.eta=[0,1] n_samples=1000000 n_reference=10000 block=2000 logger=none"
    command = [sys.executable, "-c", MEASURED, "experiment=tiny", f"metric={metric}"]
    command += f"{words} {cells} hydra.run.dir={tmp_path}/run".split()
    if metric == "max_sliced":
        command.append("metric.max_sliced.directions=64")
    done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    assert 2e5 < int(done.stdout.split()[-1]) < 2e6  # 1 240 000 were measured
