"""What is left in the cache of decoded images when a process ends before its time."""

import contextlib
import fcntl
import os
import subprocess

import pytest

from app.data import store


class Interrupt(BaseException):
    """What a signal becomes."""


@pytest.mark.parametrize("memory_fraction", [0.25, 0.0])
def test_a_signal_while_decoding_leaves_nothing_behind(
    load, write_images, data_root, monkeypatch, memory_fraction
):
    write_images("image_folder", count=300, size=(20, 20))
    monkeypatch.setattr(store, "MEMORY_FRACTION", memory_fraction)
    monkeypatch.setattr(store, "BLOCK_BYTES", 200 * 20 * 20 * 3)
    decoded = []

    def advance(count):
        decoded.append(count)
        if sum(decoded) > 250:  # in the second of three blocks
            assert len(list((data_root / ".cache").glob(".tmp-*"))) == (memory_fraction == 0)
            raise Interrupt

    monkeypatch.setattr(store, "progress", lambda *_: contextlib.nullcontext(advance))
    with pytest.raises(Interrupt):
        load()
    assert not list(data_root.glob(".cache/.*"))


def test_what_killed_processes_left_in_the_cache_is_removed(load, write_images, data_root):
    write_images("image_folder")
    cache = data_root / ".cache"
    cache.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f".tmp-{ended.pid}-a.npy", f".tmp-{ended.pid}-b.json", ".tmp-1-lives.npy", ".tmp-1-old.npy"]
    names += [f".tmp-{ended.pid}-elsewhere.npy", ".tmp-99999999999999999999-c.npy", "kept.npy"]
    for name in names:
        (cache / name).write_bytes(b"x" * 1000)
    os.utime(cache / ".tmp-1-old.npy", (0, 0))
    with open(cache / f".tmp-{ended.pid}-elsewhere.npy", "rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # of a process of another machine or container
        load()
    assert sorted(path.name for path in cache.iterdir()) == sorted([names[2], names[4], "kept.npy"])
