"""The curves: what they show, read back from the pixels or from the drawing itself."""

import math
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from app.config import Experiment
from app.drawing import curves as plots
from app.runs import Run
from tests.conftest import SHIPPED

FILES = ("curves.png", "accuracy.png", "loss.png")


def draw_curves(
    rows,
    folder,
    title="a run",
    monitor="val_accuracy",
    validation_name="validation",
    resumed_epochs=(),
    **training,
):
    """Draw the curves of an experiment of this name."""
    experiment = Experiment(
        name=title,
        dataset={"name": "digits", "validation": "test" if validation_name == "test" else 0.1},
        model={"name": "lenet5"},
        optimizer={"name": "sgd", "learning_rate": {"schedule": "constant", "peak": 0.1}},
        training={"epochs": max(1, len(rows)), "batch_size": 1, "monitor": monitor, **training},
    )
    plots.draw_curves(Run(folder), experiment, rows, resumed_epochs)


def history(num_epochs):
    return [
        {
            "epoch": epoch,
            "loss": 2.0 / epoch,
            "accuracy": 1 - 0.8 / epoch,
            "val_loss": 2.2 / epoch + 0.1,
            "val_accuracy": 0.9 - 0.7 / epoch - 0.01 * (epoch == num_epochs),
        }
        for epoch in range(1, num_epochs + 1)
    ]


@pytest.fixture
def panels(monkeypatch):
    """Axes of both panels of every picture drawn in a test, as they were when their legend was made."""
    seen = []
    legend = Axes.legend

    def spy(axes, *arguments, **keywords):
        seen.append(axes)
        return legend(axes, *arguments, **keywords)

    monkeypatch.setattr(Axes, "legend", spy)
    return seen


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def has_colour(path, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (pixels(path) == wanted).all(axis=-1).any()


@pytest.mark.parametrize("num_epochs", [1, 3, 50, 200])
def test_draws_three_legible_pictures_with_both_curves(tmp_path, panels, num_epochs):
    draw_curves(history(num_epochs), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    assert pixels(tmp_path / "curves.png").shape == (700, 1600, 3)  # without a learning rate
    assert pixels(tmp_path / "loss.png").shape == (700, 800, 3)
    for name in FILES:
        assert has_colour(tmp_path / name, plots.BLUE), name
        assert has_colour(tmp_path / name, plots.VERMILION), name
    for axes in panels:
        left, right = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if left <= tick <= right]
        assert ticks and all(tick == round(tick) for tick in ticks)  # epochs


def test_single_panels_are_the_halves_of_the_double_one(tmp_path):
    draw_curves(with_rates(5, lambda epoch: 0.1), tmp_path)
    both, accuracy, loss = (pixels(tmp_path / name) for name in FILES)
    np.testing.assert_array_equal(np.hstack([accuracy, loss]), both[:700])


def test_names_the_curves_and_the_best_epoch(tmp_path, panels):
    draw_curves(history(10), tmp_path)
    accuracy, loss = panels
    assert legend_texts(accuracy) == ["Training Accuracy", "Validation Accuracy", "best: 0.8222 at epoch 9"]
    assert legend_texts(loss) == ["Training Loss", "Validation Loss", "0.3444 at epoch 9 (best val_accuracy)"]
    assert accuracy.get_xlabel() == loss.get_xlabel() == "epoch"


def test_says_that_the_best_was_chosen_on_the_test_split(tmp_path, panels):
    draw_curves(history(10), tmp_path, validation_name="test")
    assert legend_texts(panels[0])[1:] == ["Validation Accuracy (test)", "best on test: 0.8222 at epoch 9"]
    assert "(best val_accuracy)" in legend_texts(panels[1])[2]  # not the best loss on test


@pytest.mark.parametrize(
    ("monitor", "panel", "words"),
    [
        ("val_loss", 1, "best: 0.3200 at epoch 10"),
        ("accuracy", 0, "best: 0.9200 at epoch 10"),
        ("loss", 1, "best: 0.2000 at epoch 10"),
    ],
)
def test_best_follows_the_monitor(tmp_path, panels, monitor, panel, words):
    draw_curves(history(10), tmp_path, monitor=monitor)
    assert words in legend_texts(panels[panel])


def test_best_is_the_first_of_equals(tmp_path, panels):
    rows = [row | {"val_accuracy": 0.5} for row in history(4)]
    draw_curves(rows, tmp_path)
    assert "best: 0.5000 at epoch 1" in legend_texts(panels[0])


def test_gaps_where_values_are_missing_or_not_finite(tmp_path, panels):
    rows = history(6)
    rows[1]["val_accuracy"] = math.nan
    del rows[2]["val_accuracy"]
    rows[3]["loss"] = math.inf
    rows[5]["val_loss"] = math.nan
    draw_curves(rows, tmp_path)
    accuracy, loss = panels
    np.testing.assert_array_equal(np.isnan(accuracy.lines[1].get_ydata()), [0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(np.isnan(loss.lines[0].get_ydata()), [0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(np.isnan(loss.lines[1].get_ydata()), [0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize("rows", [[], [{"epoch": 1, "loss": math.nan, "accuracy": math.nan}]])
def test_draws_something_even_where_nothing_is_finite(tmp_path, rows):
    draw_curves(rows, tmp_path)
    assert all((tmp_path / name).stat().st_size for name in FILES)


def test_a_short_spike_does_not_flatten_the_curves(tmp_path, panels):
    rows = history(30)
    rows[0]["val_loss"], rows[1]["val_loss"] = 1e4, 300.0
    draw_curves(rows, tmp_path)
    assert 2.0 < panels[1].get_ylim()[1] < 10.0
    assert "up to 1e+04" in [text.get_text() for text in panels[1].texts]


def test_an_ordinary_descent_is_shown_whole(tmp_path, panels):
    draw_curves(history(50), tmp_path)
    assert panels[1].get_ylim()[1] > 2.3
    assert not panels[1].texts


def test_tiny_differences_are_not_blown_up(tmp_path, panels):
    rows = [row | {"accuracy": 0.98761, "val_accuracy": 0.98762} for row in history(3)]
    draw_curves(rows, tmp_path)
    bottom, top = panels[0].get_ylim()
    assert top - bottom >= 0.05 and top <= 1.02


def test_resumed_epochs_are_marked_once_in_the_legend(tmp_path, panels):
    draw_curves(history(10), tmp_path, resumed_epochs=[4, 8])
    assert legend_texts(panels[0]).count("resumed") == 1
    assert [line.get_xdata()[0] for line in panels[0].lines if line.get_linestyle() == ":"] == [4, 8]


def test_the_title_is_taken_literally(tmp_path):
    draw_curves(history(2), tmp_path, title="$x_{ unclosed $")
    assert (tmp_path / "curves.png").exists()


def test_same_history_same_bytes_and_no_leftovers(tmp_path):
    draw_curves(history(3), tmp_path)
    first = [(tmp_path / name).read_bytes() for name in FILES]
    draw_curves(history(3), tmp_path)
    assert [(tmp_path / name).read_bytes() for name in FILES] == first
    assert len(list(tmp_path.iterdir())) == len(FILES)


def test_import_is_cheap_and_drawing_leaves_pyplot_alone(tmp_path):
    program = (
        "import sys; from pathlib import Path; import app.drawing.curves;"
        "assert 'matplotlib' not in sys.modules;"
        "from tests.drawing.test_curves import draw_curves;"
        f"draw_curves([{{'epoch': 1, 'loss': 1.0}}], Path({str(tmp_path)!r}));"
        "assert not {'matplotlib.pyplot', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=SHIPPED.parent)


def with_rates(num_epochs, rate):
    return [row | {"learning_rate": rate(row["epoch"])} for row in history(num_epochs)]


@pytest.mark.parametrize(("first", "title"), [(0.1, "learning rate"), (0.00025, "learning rate (in 1e-4)")])
def test_learning_rate_has_a_strip_of_its_own_below_both_panels(tmp_path, panels, first, title):
    draw_curves(with_rates(10, lambda epoch: first * 0.5 ** (epoch - 1)), tmp_path)
    accuracy, loss = panels
    (strip,) = set(loss.figure.axes) - {accuracy, loss}
    (line,) = strip.lines
    np.testing.assert_allclose(line.get_ydata(), first * 0.5 ** np.arange(10))
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 11))
    assert strip.get_title(loc="left") == title
    assert strip.get_ylim()[0] == 0 and len({tick.get_text() for tick in strip.get_yticklabels()}) >= 2
    upper, lower = loss.get_tightbbox(), strip.get_tightbbox()
    assert lower.y1 <= upper.y0 and lower.y0 >= 0 and lower.x0 >= 0  # nothing covered, nothing cut off
    assert lower.x0 <= accuracy.get_window_extent().x0 and lower.x1 >= loss.get_window_extent().x1


@pytest.mark.parametrize("num_epochs", [1, 1200])
@pytest.mark.parametrize("training", [{}, {"monitor": "val_loss", "ema": {"decay": 0.9}}])
def test_the_longest_legends_hide_nothing_and_stay_in_their_half(tmp_path, panels, num_epochs, training):
    rows = history(num_epochs)
    rows[0]["val_loss"] = 1e4
    draw_curves(rows, tmp_path, validation_name="test", resumed_epochs=[1], **training)
    for half, axes in enumerate(panels):
        legend = axes.get_legend().get_window_extent()
        assert legend.y0 >= axes.get_window_extent().y1 - 1
        assert legend.x0 >= 800 * half and legend.x1 <= 800 * (half + 1)


@pytest.mark.parametrize("num_epochs", [1, 2])
def test_a_learning_rate_of_nought_or_of_one_epoch_is_drawn(tmp_path, panels, num_epochs):
    draw_curves(with_rates(num_epochs, lambda epoch: 0.0), tmp_path)
    assert (pixels(tmp_path / "curves.png")[700:] == [0x76, 0x76, 0x76]).all(axis=-1).any()


def test_no_learning_rate_no_strip(tmp_path, panels):
    draw_curves(with_rates(3, lambda epoch: math.nan), tmp_path)
    assert len(panels[0].figure.axes) == 2


def test_legend_says_which_weights_are_validated(tmp_path, panels):
    draw_curves(history(9), tmp_path, validation_name="test", ema={"decay": 0.9})
    assert legend_texts(panels[1])[:2] == ["Training Loss", "Validation Loss (test, EMA)"]
