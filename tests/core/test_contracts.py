"""Every schedule, grid, target, start and level law keeps the contract of its kind.

The members are found by walking conf/ and the modules: a new one needs no line here.
"""

from types import ModuleType

import pytest

from samplerbench.core import schedules, targets
from samplerbench.core.schedules import GeometricVEKernel, VPCosine, VPLinear
from samplerbench.errors import InvalidSetting
from samplerbench.verify.core_contracts import (
    grid_faults,
    level_law_faults,
    schedule_faults,
    start_faults,
    target_faults,
)


def test_schedule(every_schedule):
    assert schedule_faults(every_schedule) == []


def test_schedule_at_the_ends_of_its_settings():
    for schedule in (VPCosine(0.0), VPLinear(2.0, 2.0), GeometricVEKernel(0.001, 200.0)):
        assert schedule_faults(schedule) == [], schedule


def test_target(target):
    assert target_faults(target) == []


def test_start(start):
    assert start_faults(start) == []


def test_level_law(level_law, all_schedules):
    for schedule in all_schedules:
        assert level_law_faults(level_law, schedule) == [], schedule


def test_grid(grid, all_schedules):
    """On every schedule, where it does not refuse its settings, as it may: noise_max=80."""
    accepted = 0
    for schedule in all_schedules:
        for steps in (1, 2, 5, 17):
            try:
                assert grid_faults(grid, schedule, steps) == [], (schedule, steps)
                accepted += 1
            except InvalidSetting:
                continue
    assert accepted > 0


def test_the_walk_finds_new_members(all_members, tmp_path):
    """A yaml file, and a class of a module; a class that needs settings is named."""
    (tmp_path / "schedule").mkdir()
    yaml = "_target_: samplerbench.core.schedules.EDM\nsigma_max: 3.0\n"
    (tmp_path / "schedule" / "mine.yaml").write_text(yaml)
    found = all_members("schedule", schedules, schedules.NoiseSchedule, tmp_path)
    assert found.pop("mine") == schedules.EDM(3.0)
    assert {"Rectified", "VPCosine", "DDPMTable"} <= set(found)
    module = ModuleType("mine")
    module.Mine = type("Mine", (targets.DataTarget,), {"__module__": "mine"})
    module.Other = targets.DataTarget  # imported: a member of another module
    assert list(all_members("target", module, targets.Target, tmp_path)) == ["Mine"]
    module.Mine.__init__ = lambda self, needed: None
    with pytest.raises(TypeError, match="needed"):
        all_members("target", module, targets.Target, tmp_path)
