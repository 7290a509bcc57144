"""What a user sees while many images are decoded: nothing, a live line, or a line now and then."""

import fcntl
import os
import struct
import sys
import termios

import pytest

from app.data import progress
from app.data.progress import progress as progress_of

COLUMNS = 40


@pytest.fixture
def terminal():
    """A terminal of 40 columns, and a function that tells what has been written to it."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    os.set_blocking(master, False)
    with open(slave, "w") as file:
        yield file, lambda: os.read(master, 100_000).decode()
    os.close(master)


def screen(written):
    """What stands on the terminal in the end; nothing may have been written beyond its last column."""
    line, column = [" "] * COLUMNS, 0
    for character in written:
        if character == "\r":
            column = 0
        else:
            assert column < COLUMNS - 1, "the line wraps"
            line[column] = character
            column += 1
    return "".join(line).rstrip()


def test_a_live_line_that_fits_and_goes_away(terminal, monkeypatch):
    file, written = terminal
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt), progress_of("decoding images", 60_000) as advance:
        advance(50_000)
        seen = written()
        assert screen(seen).startswith("decoding images: 50,000 of 60,000 (83%)"[: COLUMNS - 1])
        advance(10_000)
        seen += written()
        assert screen(seen).startswith("decoding images: 60,000 of 60,000")
        raise KeyboardInterrupt
    assert screen(seen + written()) == ""


def test_nothing_for_a_moment_of_work(terminal, monkeypatch):
    file, written = terminal
    monkeypatch.setattr(sys, "stderr", file)
    with progress_of("decoding images", 10) as advance:
        advance(10)
    print("end", file=sys.stderr, flush=True)
    assert written().strip() == "end"


def test_what_was_done_earlier_counts_for_no_speed(capsys, monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress_of("decoding images", 1000, 600) as advance:
        advance(100)
    line = "decoding images: 700 of 1,000 (70%), 10 images/s, 30 s left"
    assert capsys.readouterr().err.strip() == line


def test_lines_where_there_is_no_terminal(load, write_images, capsys, monkeypatch):
    write_images("image_folder", count=130, size=(20, 20))
    load()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    load()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and lines[-1].startswith("decoding images: 260 of 260 (100%), ")
    assert not any("\r" in line for line in lines)


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_work_goes_on_where_nobody_reads(load, write_images, tmp_path, capsys, monkeypatch, stderr):
    write_images("image_folder")
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    if stderr:
        stderr = open(tmp_path / "log", "w")
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    assert len(load().train) == 6
    assert capsys.readouterr().out == ""
