"""`make models`: the networks beside their sources, and layer by layer."""

import io

import keras
import pytest

from app.errors import UserError
from app.reports import networks
from models import published_networks
from models.network import MODELS


@pytest.fixture
def two(monkeypatch):
    """Only the two smallest networks: the zoo tests build them all."""
    rows = {row.name: row for row in published_networks()}

    def show(baseline=rows["baseline"]):
        monkeypatch.setattr(networks, "published_networks", lambda: [baseline, rows["lenet5"]])
        out = io.StringIO()
        equal = networks.print_networks(out)
        return equal, out.getvalue().splitlines()

    return rows, show


def test_networks_equal_their_sources(two):
    _, show = two
    equal, lines = show()
    assert equal and len(lines) == 3
    columns = lines[1].split()
    assert columns[:7] == ["baseline", "32x32x3", "198,506", "198,494", "12", "658,688", "yes"]
    assert "its layers: TensorFlow 2 lecture notes, chapter 5" in lines[1]


def test_what_is_counted_gets_no_values():
    """Neither at once nor when the next network is built: the largest would take seconds and gigabytes."""
    row = next(row for row in published_networks() if row.label == "vgg depth=16")
    counted = networks.build_published(row)
    with keras.StatelessScope():  # gives values to all variables of this thread that wait for them
        built = keras.layers.Dense(1)
        built.build((None, 1))
    assert built.kernel._value is not None
    assert {variable._value for variable in counted.weights} == {None}


def test_a_difference_is_said(two):
    rows, show = two
    equal, lines = show(rows["baseline"]._replace(total=198_507))
    assert not equal
    assert " no " in lines[1] and "total 198,507 there" in lines[1] and " yes " in lines[2]


def test_layers_add_up_to_the_network():
    out = io.StringIO()
    networks.print_layers("resnet18_d2l", out)
    text = out.getvalue()
    table = text[: text.index("\n\n")].splitlines()
    ends = [line[line.rindex("x") :].split() for line in table if line.startswith(("stem", "stage", "block"))]
    parameters = sum(int(words[1].replace(",", "")) for words in ends if len(words) > 1)
    assert parameters + 5_130 == 11_188_618
    assert "7x7, stride 2, padding 0, bias" in table[1]
    assert "11,188,618 parameters, 11,180,810 of them trainable, 323,552,960 MACs" in text


def test_layers_of_a_family_by_depth():
    out = io.StringIO()
    networks.print_layers("cifar_resnet depth=20", out)
    assert out.getvalue().count("Conv2D") == 19
    assert "271,098 parameters" in out.getvalue()


def test_layers_of_a_network_without_numbers_of_a_source(monkeypatch):
    class JustAdded(MODELS["baseline"]):
        published = ()

    monkeypatch.setitem(MODELS, "just_added", JustAdded)
    out = io.StringIO()
    networks.print_layers("just_added", out)
    assert "just_added on 32x32x3, 10 classes" in out.getvalue() and "none named yet" in out.getvalue()


def test_unknown_network():
    with pytest.raises(UserError, match="NETWORK=resnet19: unknown network. Did you mean 'resnet18'"):
        networks.print_layers("resnet19", io.StringIO())
