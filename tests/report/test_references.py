"""Docstrings and references.bib: each arXiv number has an entry, each entry is referred to."""

import re
import unicodedata
from codecs import decode  # pybtex adds the codec of TeX, "ulatex"
from pathlib import Path

from pybtex.database import parse_string

import samplerbench
from samplerbench.app.config.construct import first_comment
from samplerbench.app.config.folders import conf_directory
from samplerbench.report.references import (
    ARXIV,
    bibliography,
    bibtex,
    mentioned,
    references,
    short,
    sources,
    without_entry,
)

ENTRIES = bibliography().entries


def documents():
    """The docstrings of every module of the package, and the first comment of every yaml."""
    for path in Path(samplerbench.__file__).parent.rglob("*.py"):
        yield " ".join(re.findall(r'"""(.*?)"""', path.read_text(), re.S))
    for path in conf_directory().rglob("*.yaml"):
        yield first_comment(path)


def test_every_number_has_an_entry_and_every_entry_is_referred_to():
    texts = list(filter(None, documents()))
    numbers = {n for text in texts for n in re.findall(ARXIV, " ".join(text.split()))}
    assert len(numbers) > 25
    assert numbers <= {entry.fields.get("eprint") for entry in ENTRIES.values()}
    assert {key for text in texts for key in mentioned(text)} == set(ENTRIES)


def ascii_letters(name):
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()


def test_entries_are_complete_and_different():
    for key, entry in ENTRIES.items():
        assert {"title", "year"} <= set(entry.fields), key
        family = entry.persons["author"][0].last_names[0]
        assert key.startswith(ascii_letters(family).split("-")[0])
        assert entry.fields["year"] in key
        if "eprint" in entry.fields:
            assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.fields["eprint"]), key
            assert entry.fields["archiveprefix"] == "arXiv", key
            # published in the same year or later
            assert 2000 + int(entry.fields["eprint"][:2]) <= int(entry.fields["year"]), key
    for field in ("eprint", "doi", "title"):
        values = [entry.fields[field] for entry in ENTRIES.values() if field in entry.fields]
        assert len(set(values)) == len(values), field


def without_tex(entry):
    fields = {name: decode(text, "ulatex") for name, text in entry.fields.items()}
    return fields, [decode(str(person), "ulatex") for person in entry.persons["author"]]


def test_written_bibtex_reads_back():
    written = bibtex(list(ENTRIES))
    assert written.isascii()  # for output in any encoding
    again = parse_string(written, "bibtex").entries
    assert set(again) == set(ENTRIES)
    for key, entry in again.items():
        assert without_tex(entry) == without_tex(ENTRIES[key])


def test_an_entry_is_mentioned_by_number_doi_or_title():
    assert mentioned("as in arXiv\n  2010.02502, Eq. 16") == ["song2021denoising"]
    assert mentioned("doi 10.1137/060659831") == ["trefethen2008gauss"]
    assert mentioned(
        "Kutta, “Beitrag zur naherungsweisen\nIntegration totaler Differential-\ngleichungen”"
    )
    assert mentioned("arXiv 2206.00364, then arXiv 1907.05600") == [
        "karras2022elucidating",
        "song2019generative",
    ]
    assert mentioned("nothing at all") == []
    within_another_title = '"Improved denoising diffusion probabilistic models", ICML 2021'
    assert mentioned(within_another_title) == ["nichol2021improved"]


def test_a_members_own_docstring_comes_first():
    assert references("samplerbench.samplers.heun.Heun") == ["karras2022elucidating"]
    assert references("samplerbench.metrics.energy.Energy")[0] == "szekely2013energy"
    assert references("samplerbench.core.targets.DataTarget") == []  # a module of several members
    assert references("samplerbench.nothing.There") == []
    assert without_entry("samplerbench.samplers.heun.Heun") == []


def test_short():
    assert short("song2021denoising") == "arXiv 2010.02502"
    assert short("kutta1901beitrag") == "Kutta 1901"
    assert short("roberts1996exponential") == "Roberts and Tweedie 1996"
    assert short("gretton2012kernel") == "Gretton et al. 2012"


def test_sources_of_configs():
    ddim = {"sampler": {"mine": {"_target_": "samplerbench.samplers.ddim.DDIM"}}}
    sliced = {"metric": {"sliced": {"_target_": "samplerbench.metrics.sliced.Sliced"}}}
    loss = {"objective": {"_target_": "samplerbench.objectives.implicit.Implicit"}}
    sampler, objective, metric = sources([sliced, ddim, ddim, loss])
    assert objective.texts[0].startswith("A. Hyvärinen")
    assert (sampler.group, sampler.name) == ("sampler", "mine")
    assert "arXiv 2010.02502" in sampler.texts[0]
    assert metric.texts[0].startswith("N. Bonneel")  # its module lists it
    for target in ("os.system", "samplerbench.../../etc.passwd", "samplerbench.no.such.Thing", 3):
        assert sources([{"sampler": {"mine": {"_target_": target}}}]) == []
