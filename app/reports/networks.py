"""The networks side by side with what their sources say, and one network layer by layer."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO

import keras

from app.errors import UserError
from app.wording import aligned, nearest
from models import build_model, published_networks
from models.inspect import count_macs, count_weights, named_layers
from models.network import MODELS, Network, Published
from models.torch_layers import TorchConv2D

_HEADINGS = ("network", "input", "total", "trainable", "non-trainable", "MACs", "equal", "numbers from")
_WIDTHS = (33, 13, 12, 12, 13, 15, 5, 0)


def print_networks(out: TextIO) -> bool:
    """Print a line a network: size and cost as built here, and whether they equal the source's.

    Returns:
        Whether all are equal.
    """
    _print_line(_HEADINGS, out)
    all_equal = True
    for published in published_networks():
        network = build_published(published)
        total, trainable = network.count_params(), count_weights(network.trainable_weights)
        macs = count_macs(network)
        ours = {"total": total, "trainable": trainable, "MACs": macs}
        theirs = (published.total, published.trainable, published.macs)
        differences = [
            f"{what} {there:,} there"
            for (what, here), there in zip(ours.items(), theirs, strict=True)
            if here != there
        ]
        origin = f"{published.counted}: {published.source}"
        _print_line(
            (
                published.label,
                f"{published.pixels}x{published.pixels}x3",
                f"{total:,}",
                f"{trainable:,}",
                f"{total - trainable:,}",
                f"{macs:,}",
                "no" if differences else "yes",
                f"{', '.join(differences)} ({origin})" if differences else origin,
            ),
            out,
        )
        all_equal = all_equal and not differences
    return all_equal


def print_layers(label: str, out: TextIO) -> None:
    """Print one network layer by layer, by its label in `print_networks`, such as `resnet depth=50`.

    Raises:
        UserError: There is no such network.
    """
    rest = [_without_source(name) for name, cls in MODELS.items() if not cls.published]
    known = {published.label: published for published in reversed([*published_networks(), *rest])}
    by_name = {published.name: published for published in known.values()}
    published = known.get(label) or by_name.get(label)
    if published is None:
        meant = nearest(label, list(known))
        guess = f" Did you mean '{meant}'?" if meant else ""
        raise UserError(f"NETWORK={label}: unknown network.{guess} Known are: {', '.join(reversed(known))}")
    network = build_published(published)
    rows = [("layer", "kind", "settings", "output", "parameters", "MACs")]
    rows += [
        (
            path,
            type(layer).__name__,
            _settings(layer),
            "x".join(map(str, layer.output.shape[1:])),
            f"{layer.count_params():,}" if layer.count_params() else "",
            f"{count_macs(layer):,}" if count_macs(layer) else "",
        )
        for path, layer in named_layers(network)
    ]
    print(*aligned(rows, right=(4, 5)), sep="\n", file=out)
    trainable = count_weights(network.trainable_weights)
    print(
        f"\n{published.label} on {published.pixels}x{published.pixels}x3, {published.num_classes} classes: "
        f"{network.count_params():,} parameters, {trainable:,} of them trainable, "
        f"{count_macs(network):,} MACs an image\nsource: {published.source}",
        file=out,
    )


def build_published(published: Published) -> Network:
    """Return the network with shapes but without values: a VGG's weights alone would take seconds."""

    def build() -> Network:
        size = (published.pixels, published.pixels, 3)
        with keras.StatelessScope(initialize_variables=False):
            return build_model(published.name, size, published.num_classes, **published.arguments)

    # In a thread of its own: Keras remembers, in each thread, the variables that still want their values, and
    # would give them theirs when the next model is built.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(build).result()


def _without_source(name: str) -> Published:
    """Return a network without numbers of a source, on the smallest images from 32 pixels that fit."""
    return Published(MODELS[name].pixels_from(32), 10, 0, 0, 0, "none named yet", "", name=name)


def _print_line(cells: tuple[str, ...], out: TextIO) -> None:
    print(*aligned([cells], right=range(2, 6), widths=_WIDTHS), file=out, flush=True)


def _settings(layer: keras.layers.Layer) -> str:
    """Return what tells a layer from others of its kind, as in a paper's table."""
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        even = isinstance(layer, TorchConv2D) and layer.padding == "valid"
        padding = f"padding {layer.zeros}" if even else layer.padding
        return f"{_by(layer.kernel_size)}, stride {layer.strides[0]}, {padding}, {_sums(layer)}"
    if isinstance(layer, keras.layers.MaxPooling2D | keras.layers.AveragePooling2D):
        return f"{_by(layer.pool_size)}, stride {layer.strides[0]}, {layer.padding}"
    if isinstance(layer, keras.layers.BatchNormalization):
        return f"momentum {layer.momentum:g}, epsilon {layer.epsilon:g}"
    if isinstance(layer, keras.layers.Dropout):
        return f"rate {layer.rate:g}"
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return f"padding {layer.padding[0][0]}"
    if isinstance(layer, keras.layers.Dense):
        return _sums(layer)
    return ""


def _sums(layer: Any) -> str:
    """Return what follows the sums of a convolution or dense layer."""
    bias = "bias" if layer.use_bias else "no bias"
    linear = layer.activation is keras.activations.linear
    return bias if linear else f"{bias}, {layer.activation.__name__}"


def _by(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
