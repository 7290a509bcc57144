"""A run that mixes images says what its training metrics are."""

import io

from matplotlib.axes import Axes

import app.training.train as runner
from app.config import load_experiment
from app.reports.report import write_report


def test_a_run_says_what_it_measured(home, monkeypatch):
    labels, plot = set(), Axes.plot

    def labelled(axes, *values, **more):
        labels.add(more.get("label"))
        return plot(axes, *values, **more)

    monkeypatch.setattr(Axes, "plot", labelled)
    run = runner.train(load_experiment("tiny", ["augmentation=[mixup]"]), out=io.StringIO())
    assert {"Training Loss (mixed)", "Validation Loss"} <= labels
    assert "those of mixed images" in write_report(run).read_text()


def test_other_runs_do_not_speak_of_mixing(digits_run):
    assert "mixed images" not in digits_run.report.read_text()
