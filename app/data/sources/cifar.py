"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 32x32 pixels in colour."""

from functools import partial

from app.config.dataset import DatasetConfig
from app.data.dataset import Source
from app.data.sources import dataset
from app.data.sources.archives import read_cifar
from app.data.sources.published import published

CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle",
    "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear",
    "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon",
    "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail",
    "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip


@dataset("cifar10")
def _cifar10(config: DatasetConfig) -> Source:
    archive, train = "cifar-10-binary.tar.gz", [f"data_batch_{n}.bin" for n in range(1, 6)]
    reader = partial(read_cifar, archive=archive, train=train, test="test_batch.bin", label_bytes=1)
    files = f"{archive}, or its data_batch_1.bin ... data_batch_5.bin and test_batch.bin"
    return published(config, names=CIFAR10, channels=3, reader=reader, files=files)


@dataset("cifar100")
def _cifar100(config: DatasetConfig) -> Source:
    archive = "cifar-100-binary.tar.gz"
    reader = partial(read_cifar, archive=archive, train=["train.bin"], test="test.bin", label_bytes=2)
    files = f"{archive}, or its train.bin and test.bin"
    return published(config, names=CIFAR100, channels=3, reader=reader, files=files)
