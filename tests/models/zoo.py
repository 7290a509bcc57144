"""The table of networks that the zoo tests go through, and what they share. A new network gets a row here."""

from typing import NamedTuple

import keras


class Row(NamedTuple):
    name: str
    pixels: int
    num_classes: int
    total: int
    trainable: int
    macs: int
    bn: tuple[int, float, float] | None  # number of normalisations, momentum, epsilon
    arguments: dict = {}
    small: int = 32  # pixels for the tests that train

    @property
    def id(self):
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


KERAS_BN = (0.99, 1e-3)
TORCH_BN = (0.9, 1e-5)
# Total and trainable weights and multiply-accumulates: ten networks as their sources print or imply them.
SOURCES = [
    Row("baseline", 32, 10, 198_506, 198_494, 658_688, (1, *KERAS_BN)),
    Row("lenet5", 32, 10, 62_006, 62_006, 651_720, None),
    Row("alexnet8", 32, 10, 9_639_178, 9_638_474, 117_909_632, (2, *KERAS_BN)),
    Row("vgg16", 32, 10, 15_262_026, 15_253_578, 313_725_952, (13, *KERAS_BN)),
    Row("inception10", 32, 10, 121_418, 120_234, 12_240_128, (25, *KERAS_BN)),
    Row("resnet18", 32, 10, 11_183_562, 11_173_962, 555_422_720, (20, *KERAS_BN)),
    Row("shallow_res", 128, 10, 4_919_562, 4_913_802, 290_198_528, (12, *KERAS_BN)),
    Row("minimodel", 32, 10, 4_374_538, 4_368_714, 214_796_800, (25, *KERAS_BN)),
    Row("resnet50", 224, 4, 23_989_124, 23_936_004, 3_832_684_544, (53, *TORCH_BN), small=64),
    Row("resnet18_d2l", 96, 10, 11_188_618, 11_180_810, 323_552_960, (17, *TORCH_BN), small=71),
]
# Trainable weights as published; the cost agrees with the papers': 1.8, 3.6, 3.8, 7.6, 11.3 for ResNet,
# 15.5 and 19.6 billion for VGG (where it follows from the layers).
FAMILIES = [
    Row("resnet", 224, 1000, 11_699_112, 11_689_512, 1_814_073_344, (20, *TORCH_BN), {"depth": 18}),
    Row("resnet", 224, 1000, 21_814_696, 21_797_672, 3_663_761_408, (36, *TORCH_BN), {"depth": 34}),
    Row("resnet", 224, 1000, 25_610_152, 25_557_032, 3_857_973_248, (53, *TORCH_BN), {"depth": 50}),
    Row("resnet", 224, 1000, 44_654_504, 44_549_160, 7_570_194_432, (104, *TORCH_BN), {"depth": 101}),
    Row("resnet", 224, 1000, 60_344_232, 60_192_808, 11_282_415_616, (155, *TORCH_BN), {"depth": 152}),
    # The lecture notes' ResNet18 is this one with other padding and normalisation settings.
    Row(
        "resnet", 32, 10, 11_183_562, 11_173_962, 555_422_720, (20, *TORCH_BN), {"depth": 18, "stem": "cifar"}
    ),
    Row("vgg", 224, 1000, 138_357_544, 138_357_544, 15_470_264_320, None, {"depth": 16}),
    Row("vgg", 224, 1000, 143_667_240, 143_667_240, 19_632_062_464, None, {"depth": 19}),
]


def cifar_rows():
    for depth in (20, 32, 44, 56, 110):
        n = (depth - 2) // 6
        # Stem, 2n convolutions a stage less the narrower input of stages 2 and 3, head; then the
        # normalisations.
        kernels = 9 * (3 * 16 + 2 * n * (16**2 + 32**2 + 64**2) - 32 * 16 - 64 * 32) + 65 * 10
        channels = 16 + 2 * n * (16 + 32 + 64)
        pixels = 9 * (3 * 16 + 2 * n * 16**2) * 32**2  # stem and stage 1
        pixels += 9 * (2 * n * 32**2 - 32 * 16) * 16**2 + 9 * (2 * n * 64**2 - 64 * 32) * 8**2
        counts = (kernels + 4 * channels, kernels + 2 * channels, pixels + 640)
        for variant in ({}, {"shortcuts": False}, {"preactivation": True}):
            if depth in (20, 56) or not variant:
                row = Row(
                    "cifar_resnet", 32, 10, *counts, (6 * n + 1, *TORCH_BN), {"depth": depth, **variant}
                )
                yield row


ROWS = [*SOURCES, *FAMILIES, *cifar_rows()]
# Families: the deepest members take seconds to build, and train as the shallow ones do.
DEEP = [row for row in ROWS if row.name == "vgg" or row.arguments.get("depth") in (44, 101, 110, 152)]
TRAINED = [row for row in ROWS if row not in DEEP]


def leaves(model):
    for layer in model.layers:
        yield from leaves(layer) if isinstance(layer, keras.Model) else [layer]
