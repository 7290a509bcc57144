"""MNIST (LeCun 1998) and Fashion-MNIST (Xiao 2017), 28x28 pixels in gray."""

from app.config.dataset import DatasetConfig
from app.data.dataset import Source
from app.data.sources import dataset
from app.data.sources.archives import read_idx
from app.data.sources.published import published

FASHION_MNIST = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FILES = "{train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]"


@dataset("mnist")
def _mnist(config: DatasetConfig) -> Source:
    digits = tuple("0123456789")
    return published(config, names=digits, channels=1, reader=read_idx, files=FILES)


@dataset("fashion_mnist")
def _fashion_mnist(config: DatasetConfig) -> Source:
    return published(config, names=FASHION_MNIST, channels=1, reader=read_idx, files=FILES)
