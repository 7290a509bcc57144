"""The networks side by side: the bars are the layers, and every word can be read."""

import pytest
from matplotlib.colors import to_rgba

from app.drawing.canvas import VERMILION
from app.reports.architectures import draw_architectures, shade
from models import published_networks
from tests.drawing.test_curves import has_colour
from tests.evaluation.test_image_sheets import assert_legible, texts_of

NETWORKS = {published.name: published for published in published_networks()[:10]}


def test_bars_are_the_layers_of_the_source(tmp_path, figures):
    draw_architectures(tmp_path / "a.png", [NETWORKS["vgg16"]])
    bars = figures[0].axes[0].patches[1:]
    sides, units = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3, [512, 512, 10]
    expected = [(side / 32) ** 0.5 for side in sides] + [(each / 2048) ** 0.5 for each in units]
    assert [bar.get_height() for bar in bars] == pytest.approx(expected)
    colours = [shade(channels) for channels in [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6]
    assert [bar.get_facecolor() for bar in bars] == [to_rgba(each) for each in [*colours, *[VERMILION] * 3]]


def test_heights_are_square_roots_of_sides_and_of_units(tmp_path, figures):
    draw_architectures(tmp_path / "a.png", [NETWORKS["lenet5"]])
    image, *bars = figures[0].axes[0].patches
    assert image.get_height() == 1.0
    expected = [(28 / 32) ** 0.5, (10 / 32) ** 0.5, *((units / 2048) ** 0.5 for units in (120, 84, 10))]
    assert [bar.get_height() for bar in bars] == pytest.approx(expected)
    assert [text.get_text() for text in figures[0].axes[0].texts] == ["28", "10"]
    assert has_colour(tmp_path / "a.png", VERMILION)
    assert "0.06 million parameters" in texts_of(figures[0])
    assert "0.7 million MACs an image" in texts_of(figures[0])


def test_more_channels_are_darker_up_to_an_end():
    light = [sum(shade(channels)) for channels in (1, 6, 16, 64, 256, 512, 2048)]
    assert light == sorted(light, reverse=True)
    assert light[0] == light[1] and light[-2] == light[-1]
    assert all(0 <= part <= 1 for channels in (1, 64, 4096) for part in shade(channels))


@pytest.mark.parametrize(
    "names",
    [("lenet5", "baseline", "resnet18_d2l"), pytest.param(tuple(NETWORKS), marks=pytest.mark.slow)],
    ids=["three", "ten"],
)
def test_all_is_legible_and_no_network_reaches_into_another(tmp_path, figures, names):
    draw_architectures(tmp_path / "a.png", [NETWORKS[name] for name in names])
    (figure,) = figures
    assert_legible(figure)
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) == len(names)
    assert all(above.y0 >= below.y1 for above, below in zip(boxes, boxes[1:], strict=False))
    assert [text for text in texts_of(figure) if text in NETWORKS] == list(names)
    numbers = {name: len(axes.patches) for name, axes in zip(names, figure.axes, strict=True)}
    assert numbers["resnet18_d2l"] == 1 + 17 + 3 + 1  # the image, convolutions, projections, the head
    assert numbers.get("resnet50", 55) == 1 + 49 + 4 + 1
