"""Docstrings and references.bib: each arXiv number has an entry, and each entry is referred to."""

import ast
import re
import unicodedata
from codecs import decode  # pybtex teaches it TeX, "ulatex"
from pathlib import Path

import pytest
from pybtex.database import parse_string

import samplerbench
from samplerbench.app.construct import comment
from samplerbench.app.folders import conf_directory
from samplerbench.references import ARXIV, bibliography, bibtex, mentioned, references, short

PACKAGE = Path(samplerbench.__file__).parent


def documents():
    """Every docstring of the package, and every comment of a yaml."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield ast.get_docstring(node) or ""
    for path in conf_directory().rglob("*.yaml"):
        yield comment(path)


TEXTS = [text for text in documents() if text]


def test_every_number_has_an_entry():
    numbers = {n for text in TEXTS for n in re.findall(ARXIV, " ".join(text.split()))}
    assert len(numbers) > 25
    assert numbers <= {e.fields.get("eprint") for e in bibliography().entries.values()}


def test_every_entry_is_referred_to():
    assert {key for text in TEXTS for key in mentioned(text)} == set(bibliography().entries)


def plain(name):
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()


@pytest.mark.parametrize("key", bibliography().entries)
def test_an_entry_is_whole(key):
    entry = bibliography().entries[key]
    assert entry.persons["author"]
    assert {"title", "year"} <= set(entry.fields)
    family = entry.persons["author"][0].last_names[0]
    assert key.startswith(plain(family).split("-")[0])
    assert entry.fields["year"] in key
    if "eprint" in entry.fields:
        assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.fields["eprint"])
        assert entry.fields["archiveprefix"] == "arXiv"
        # of the same year, or published in a later one
        assert 2000 + int(entry.fields["eprint"][:2]) <= int(entry.fields["year"])


def test_no_two_entries_are_one():
    entries = bibliography().entries.values()
    for field in ("eprint", "doi", "title"):
        values = [e.fields[field] for e in entries if field in e.fields]
        assert len(set(values)) == len(values)


def test_what_is_written_is_read_again():
    written = bibtex(list(bibliography().entries))
    assert written.isascii()  # whatever it is printed in
    again = parse_string(written, "bibtex")
    assert set(again.entries) == set(bibliography().entries)
    for key, entry in again.entries.items():
        fields = bibliography().entries[key].fields
        assert {name: decode(text, "ulatex") for name, text in entry.fields.items()} == {
            name: decode(text, "ulatex") for name, text in fields.items()
        }
        people = bibliography().entries[key].persons["author"]
        assert [decode(str(of), "ulatex") for of in entry.persons["author"]] == list(
            map(str, people)
        )


def test_by_number_doi_or_title():
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


def test_a_title_within_a_title_is_not_mentioned():
    text = 'Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021'
    assert mentioned(text) == ["nichol2021improved"]


def test_a_members_own_docstring_comes_first():
    assert references("samplerbench.samplers.heun.Heun") == ["karras2022elucidating"]
    assert references("samplerbench.metrics.energy.Energy")[0] == "szekely2013energy"
    assert references("samplerbench.core.targets.DataTarget") == [], (
        "a flat module speaks for nobody"
    )
    assert references("samplerbench.nothing.There") == []


def test_short():
    assert short("song2021denoising") == "arXiv 2010.02502"
    assert short("kutta1901beitrag") == "Kutta 1901"
    assert short("roberts1996exponential") == "Roberts and Tweedie 1996"
    assert short("gretton2012kernel") == "Gretton et al. 2012"
