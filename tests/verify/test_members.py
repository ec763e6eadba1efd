"""Every member of every kind keeps the contract of its kind; samplers are in tests/samplers.

Members are found by walking conf/ and the package: a new one needs no line here.
"""

from types import ModuleType

import pytest

from samplerbench.app.config.folders import adding
from samplerbench.core import schedules, targets
from samplerbench.core.models import Density
from samplerbench.core.schedules import EDM, GeometricVEKernel, Rectified, VPCosine, VPLinear
from samplerbench.errors import InvalidSetting
from samplerbench.identity import identity
from samplerbench.verify.contract import CONTRACTS, broken

#: Kinds whose contract is checked on a list of schedules: here on these, and on all in the slow
#: suite.
ON_SCHEDULES = ("grid", "level_law")
FEW = (EDM(10.0), VPCosine(), Rectified())


def test_contract(any_member):
    kind, member = any_member
    bed = [FEW] if kind in ON_SCHEDULES else []
    assert broken(CONTRACTS[kind], member, *bed) == []
    if kind == "dataset":  # all of ours have a density, which the contract does not need
        oracle = member.oracle(EDM())
        assert oracle is None or isinstance(oracle, Density)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ON_SCHEDULES)
def test_contract_on_all_schedules(kind, all_members, all_schedules):
    for name, build in all_members(kind).items():
        assert broken(CONTRACTS[kind], build(), all_schedules) == [], name


#: The promises that take no time, for the members whose whole contract takes long.
QUICK = {
    "dataset": ("draws", "key", "settings"),
    "grid": ("rows", "settings"),
    "metric": ("applies", "refusal", "settings"),
    "objective": ("model", "network"),
    "network": ("shapes", "seed"),
}


def test_the_quick_promises_of_members_that_take_long(members_that_take_long):
    for kind, name, build in members_that_take_long:
        promises = {one: CONTRACTS[kind][one] for one in QUICK[kind]}
        bed = [FEW[:1]] if kind in ON_SCHEDULES else []
        assert broken(promises, build(), *bed) == [], name


def test_schedules_at_the_ends_of_their_settings():
    for schedule in (VPCosine(0.0), VPLinear(2.0, 2.0), GeometricVEKernel(0.001, 200.0)):
        assert broken(CONTRACTS["schedule"], schedule) == [], schedule


def test_no_two_members_are_the_same(all_members):
    for kind in CONTRACTS.keys() - {"network", "objective"}:
        seen = {}
        for name, build in all_members(kind).items():
            try:
                one = identity(build())
            except (InvalidSetting, pytest.skip.Exception):
                continue
            assert seen.setdefault(one, name) == name


def test_the_walk_finds_new_members(all_members, tmp_path):
    """A yaml file, and a class of a module; a class that needs settings is named."""
    (tmp_path / "schedule").mkdir()
    yaml = "_target_: samplerbench.core.schedules.EDM\nsigma_max: 3.0\n"
    (tmp_path / "schedule" / "mine.yaml").write_text(yaml)
    with adding([tmp_path]):
        found = all_members("schedule")
        assert found["mine"]() == schedules.EDM(3.0)
    assert {"rectified", "vp_cosine", "DDPMTable"} <= set(found)
    module = ModuleType("mine")
    module.Mine = type("Mine", (targets.DataTarget,), {"__module__": "mine"})
    module.Other = targets.DataTarget  # imported: a member of another module
    assert {*all_members("target", [module])} - {*all_members("target")} == {"Mine"}
    module.Mine.__init__ = lambda self, needed: None
    with pytest.raises(TypeError, match="needed"):
        all_members("target", [module])["Mine"]()
