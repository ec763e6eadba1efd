"""Papers from docstrings, without importing or running anything."""

from samplerbench.report.references import references


def config(target):
    return {"sampler": {"mine": {"_target_": target}}}


def test_a_sampler_cites_its_paper():
    (found,) = references([config("samplerbench.samplers.ddim.DDIM")] * 2)
    assert (found.group, found.name) == ("sampler", "mine")
    assert "arXiv 2010.02502" in found.texts[0]


def test_a_metric_cites_what_its_module_lists():
    node = {"metric": {"sliced": {"_target_": "samplerbench.metrics.sliced.Sliced"}}}
    (found,) = references([node])
    assert found.texts[0].startswith("N. Bonneel")


def test_what_is_not_ours_is_not_read():
    for target in ("os.system", "samplerbench.../../etc.passwd", "samplerbench.no.such.Thing", 3):
        assert references([config(target)]) == []
