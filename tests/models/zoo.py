"""The networks that the zoo tests go through, and what they share: sizes are those their classes publish."""

import keras

from models import published_networks


def cifar_rows():
    return [row for row in ROWS if row.name == "cifar_resnet"]


def cifar_counts(depth):
    """Total and trainable weights and multiply-accumulates by arithmetic."""
    n = (depth - 2) // 6
    # Stem, 2n convolutions a stage less the narrower input of stages 2 and 3, head; then the normalisations.
    kernels = 9 * (3 * 16 + 2 * n * (16**2 + 32**2 + 64**2) - 32 * 16 - 64 * 32) + 65 * 10
    channels = 16 + 2 * n * (16 + 32 + 64)
    pixels = 9 * (3 * 16 + 2 * n * 16**2) * 32**2  # stem and stage 1
    pixels += 9 * (2 * n * 32**2 - 32 * 16) * 16**2 + 9 * (2 * n * 64**2 - 64 * 32) * 8**2
    return kernels + 4 * channels, kernels + 2 * channels, pixels + 640


def bottleneck_rows():
    return [row for row in ROWS if row.name == "resnet" and row.arguments["depth"] >= 50]


def bottleneck_macs(depth, stride_on="first"):
    """Multiply-accumulates of a ResNet with bottlenecks by arithmetic, from the table of its paper."""
    macs = 7**2 * 3 * 64 * 112**2
    channels, side = 64, 56
    for stage, units in enumerate({50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]):
        filters = 64 * 2**stage
        for unit in range(units):
            entered = side
            if stage > 0 and unit == 0:
                side //= 2
            macs += channels * filters * (side if stride_on == "first" else entered) ** 2
            macs += (9 + 4) * filters**2 * side**2
            if unit == 0:
                macs += channels * 4 * filters * side**2  # of the shortcut
            channels = 4 * filters
    return macs + 2048 * 1000


ROWS = [
    *published_networks(),
    *(  # the lecture notes' ResNet18 is this one with other padding and normalisation settings
        row._replace(name="resnet", norms=(20, 0.9, 1e-5), arguments={"depth": 18, "stem": "cifar"})
        for row in published_networks()
        if row.name == "resnet18"
    ),
    *(
        row._replace(arguments=row.arguments | variant)
        for row in published_networks()
        if row.label in ("cifar_resnet depth=20", "cifar_resnet depth=56")
        for variant in ({"shortcuts": False}, {"preactivation": True})
    ),
]


def trained_rows():
    """Yields the rows to train and save: of a family what differs in its layers, as shallow as it goes."""
    of_resnet = ({"depth": 50}, {"depth": 18, "stem": "cifar"})  # both stems, basic units and bottlenecks
    for row in ROWS:
        if row.name == "cifar_resnet":
            if row.arguments["depth"] == 20:
                yield row._replace(arguments=row.arguments | {"depth": 8})
        elif not row.arguments or row.arguments in of_resnet:
            yield row


TRAINED = list(trained_rows())


def leaves(model):
    for layer in model.layers:
        yield from leaves(layer) if isinstance(layer, keras.Model) else [layer]
