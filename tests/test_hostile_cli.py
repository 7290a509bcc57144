"""Names that nothing can have, through the command line: exit code 2, nothing written."""

import os

import pytest

from app import cli
from tests.conftest import SHIPPED, set_project


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b", "..", "a\nb", "~nobody-of-this-name/x"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["curves", "--run"],
        ["train", "--from"],
        ["curves"],
        ["compare", "--runs"],
        ["train", "quickstart", "--data-dir"],
    ],
    ids=" ".join,
)
def test_names_that_cannot_be(arguments, name, tmp_path, monkeypatch, capsys):
    set_project(monkeypatch, tmp_path, quickstart=(SHIPPED / "quickstart.yaml").read_text())
    assert cli.main([*arguments, name]) == 2
    assert capsys.readouterr().out == "" and os.listdir(tmp_path) == ["experiments"]
