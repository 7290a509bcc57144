"""A disk that fills up while a run is trained: a small file system in memory, full for real."""

import subprocess

import pytest

from app import cli
from app.runs import list_runs
from app.training.checkpoint import load_state
from tests.training.stopped_runs import assert_same_bits


@pytest.fixture
def small_disk(home):
    """`runs/` as a file system of four megabytes."""
    folder = home / "runs"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no file system can be mounted here: {error}")
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("free_kilobytes", [100, 1000])
def test_full_disk_leaves_the_earlier_state_and_resume_goes_on(
    home, straight, small_disk, capsys, free_kilobytes
):
    """A state takes 0.6 megabytes: the disk fills up before the first one, or behind it."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4 * 2**20 - free_kilobytes * 1024))
    assert cli.main(["train", "tiny"]) == 2
    message = capsys.readouterr().err
    assert "No space left on device" in message and "Traceback" not in message
    (run,) = list_runs("tiny")
    assert not run.finished and not list(run.path.rglob(".tmp-*"))
    state, damaged = load_state(run)
    assert not damaged and (state is not None) == (free_kilobytes > 600)
    filler.unlink()
    assert cli.main(["resume", "--run", run.name]) == 0
    assert_same_bits(run, straight)
