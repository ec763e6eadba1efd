"""Atomic writing: a file is complete or absent, also with several writers."""

import os

import pytest

from samplerbench.files import replacing, sealed, unsealed, write_atomically


def test_writers_with_the_same_pid_on_two_hosts_have_their_own_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    path = tmp_path / "a.json"
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
        assert {one.parent, other.parent} == {tmp_path}
        assert list(tmp_path.glob("*.json")) == []  # no reader sees an incomplete file
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_atomically(path, b"before")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(bytes(10) + bytes([1 // 0]))
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_changed_bytes_are_refused():
    content = bytes(range(256))
    whole = sealed(content)
    assert unsealed(whole) == content
    flipped = (whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :] for k in (0, 31, 32, 200))
    for spoilt in (b"", whole[:-1], whole + b"0", content, *flipped):
        with pytest.raises(ValueError, match="its content has changed"):
            unsealed(spoilt)
