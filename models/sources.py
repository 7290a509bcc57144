"""What the sources say of their networks' size: the table that `make models` and the tests compare with.

Parameters of S2 and S3, both PyTorch, count no moving statistics there; Keras counts two for each normalised
channel, which is the difference between `trainable` and `total`.
"""

from typing import Any, NamedTuple

NOTES = "TensorFlow 2 lecture notes, chapter 5"
HE = "He et al. 2015, arXiv:1512.03385"
V1_5 = "ResNet v1.5, Goyal et al. 2017, arXiv:1706.02677"
VGG = "Simonyan and Zisserman 2014, arXiv:1409.1556"


class Published(NamedTuple):
    """One network as its source has it.

    Attributes:
        name: Its name in the registry.
        pixels: Height and width of the images, of three channels.
        num_classes: Number of classes.
        total: All weights, moving statistics included.
        trainable: The weights that are trained.
        macs: Multiply-accumulates for one image, see `models.macs`.
        source: The write-up or paper.
        counted: Where the numbers come from: the source's own print, the sum over the layers it describes, or
            a transcription in its own framework.
        arguments: The network's arguments, where they are not the defaults.
    """

    name: str
    pixels: int
    num_classes: int
    total: int
    trainable: int
    macs: int
    source: str
    counted: str
    arguments: dict[str, Any] = {}

    @property
    def label(self) -> str:
        """The name and the arguments, as in `resnet depth=50`."""
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


_LAYERS, _PRINTED, _PYTORCH = "its layers", "printed", "PyTorch"
TEN_NETWORKS = (
    Published("baseline", 32, 10, 198_506, 198_494, 658_688, NOTES, _LAYERS),
    Published("lenet5", 32, 10, 62_006, 62_006, 651_720, NOTES, _LAYERS),
    Published("alexnet8", 32, 10, 9_639_178, 9_638_474, 117_909_632, NOTES, _LAYERS),
    Published("vgg16", 32, 10, 15_262_026, 15_253_578, 313_725_952, NOTES, _LAYERS),
    Published("inception10", 32, 10, 121_418, 120_234, 12_240_128, NOTES, _LAYERS),
    Published("resnet18", 32, 10, 11_183_562, 11_173_962, 555_422_720, NOTES, _LAYERS),
    Published(
        "shallow_res", 128, 10, 4_919_562, 4_913_802, 290_198_528,
        "training log of a 10-layer residual network (Keras)", _PRINTED,
    ),
    Published(
        "minimodel", 32, 10, 4_374_538, 4_368_714, 214_796_800,
        "blog post 'Decode Residual Network' (Keras)", _PRINTED,
    ),
    Published(
        "resnet50", 224, 4, 23_989_124, 23_936_004, 3_832_684_544,
        "practice post 'J1 - ResNet-50' (PyTorch)", _PRINTED,
    ),
    Published(
        "resnet18_d2l", 96, 10, 11_188_618, 11_180_810, 323_552_960,
        "'PyTorch lesson 9: ResNet'", _PYTORCH,
    ),
)  # fmt: skip

# Added for people without a GPU; its source is code, whose layers are counted.
FAST_NETWORKS = (
    Published(
        "fast_cifar10", 32, 10, 1_973_944, 1_971_352, 118_147_360,
        "Jordan 2024, arXiv:2404.00498, airbench94", _LAYERS,
    ),
)  # fmt: skip


def _family(
    name: str,
    source: str,
    counted: str,
    pixels: int,
    num_classes: int,
    *rows: tuple[dict[str, Any], int, int, int],
) -> list[Published]:
    """Return one row for each (arguments, total, trainable, macs)."""
    return [
        Published(name, pixels, num_classes, total, trainable, macs, source, counted, arguments)
        for arguments, total, trainable, macs in rows
    ]


# Trainable weights of the ImageNet networks as torchvision publishes them. The costs agree with the papers'
# rounded ones (1.8, 3.6, 3.8, 7.6 and 11.3 billion for ResNet); torchvision's 4.09, 7.80 and 11.51 are those of
# the same weights with the stride on the 3x3. The narrow ResNets agree with their paper's 0.27, 0.46, 0.66,
# 0.85 and 1.7 million; plain and pre-activation networks have the same counts.
FAMILIES = (
    *_family(
        "resnet", HE, "torchvision", 224, 1000,
        ({"depth": 18}, 11_699_112, 11_689_512, 1_814_073_344),
        ({"depth": 34}, 21_814_696, 21_797_672, 3_663_761_408),
    ),
    *_family(
        "resnet", HE, _LAYERS, 224, 1000,
        ({"depth": 50}, 25_610_152, 25_557_032, 3_857_973_248),
        ({"depth": 101}, 44_654_504, 44_549_160, 7_570_194_432),
        ({"depth": 152}, 60_344_232, 60_192_808, 11_282_415_616),
    ),
    *_family(
        "resnet", V1_5, "torchvision", 224, 1000,
        ({"depth": 50, "stride_on": "middle"}, 25_610_152, 25_557_032, 4_089_184_256),
        ({"depth": 101, "stride_on": "middle"}, 44_654_504, 44_549_160, 7_801_405_440),
        ({"depth": 152, "stride_on": "middle"}, 60_344_232, 60_192_808, 11_513_626_624),
    ),
    *_family(
        "vgg", VGG, "torchvision", 224, 1000,
        ({"depth": 16}, 138_357_544, 138_357_544, 15_470_264_320),
        ({"depth": 19}, 143_667_240, 143_667_240, 19_632_062_464),
    ),
    *_family(
        "cifar_resnet", HE, _LAYERS, 32, 10,
        ({"depth": 20}, 271_098, 269_722, 40_551_040),
        ({"depth": 32}, 466_426, 464_154, 68_862_592),
        ({"depth": 44}, 661_754, 658_586, 97_174_144),
        ({"depth": 56}, 857_082, 853_018, 125_485_696),
        ({"depth": 110}, 1_736_058, 1_727_962, 252_887_680),
    ),
)  # fmt: skip
PUBLISHED = (*TEN_NETWORKS, *FAST_NETWORKS, *FAMILIES)
