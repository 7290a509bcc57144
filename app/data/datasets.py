"""The registry of datasets, where each is looked for, and how validation data is set apart.

Local files come first: `dataset.data_dir` (or DATA_DIR), else `data/<name>/` where it exists. A new dataset
is a function here, a line of LOADERS and its name in the schema.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.data import class_names
from app.data.archives import Reader, read_cifar, read_idx, read_npz
from app.data.arrays import Arrays, numbered, source_of
from app.data.dataset import Dataset, Source, Split, fingerprint
from app.data.folders import load_folder
from app.data.images import ImageFormat
from app.data.listing import subfolders
from app.data.normalization import normalization_constants
from app.data.splits import stratified, train_share
from app.data.store import remove_stale_temporaries
from app.errors import UserError
from app.paths import project_root, shown
from app.wording import printable, received

if TYPE_CHECKING:
    from app.config.schema import DatasetConfig

__all__ = ["LOADERS", "Dataset", "Split", "load_dataset", "normalization_constants"]

CACHE_FOLDER = ".cache"  # in the data root; may be deleted at any time
Loader = Callable[["DatasetConfig", Path], Source]


def load_dataset(config: "DatasetConfig", data_root: Path) -> Dataset:
    """Load a dataset and set its validation images apart.

    Args:
        config: The experiment's `dataset:` section.
        data_root: The folder in which `<name>/` is looked for, and whose `.cache/` receives decoded images
            that are too many for memory.

    Returns:
        The dataset, uint8 images of one size.

    Raises:
        UserError: Whatever is wrong with the files or missing.
    """
    remove_stale_temporaries(data_root / CACHE_FOLDER)
    source = LOADERS[config.name](config, data_root)
    train, val, test, rule = _divide(source, config.validation, config.split_seed)
    if config.train_share is not None:
        share, classes = config.train_share, len(source.class_names)
        train = train_share(train, share, len(source.train), config.split_seed, classes)
        rule += f"; {config.train_share:.4g} of the training split to train on"
    return Dataset(
        name=config.name,
        class_names=source.class_names,
        train=train,
        val=val,
        test=test,
        source=source.text,
        split_rule=rule,
        fingerprint=fingerprint(source),
        skipped=source.skipped,
    )


def _divide(source: Source, validation: float | str, seed: int) -> tuple[Split, Split, Split | None, str]:
    """Return training, validation and test split, and the rule in words."""
    if isinstance(validation, str):
        if source.test is None:
            raise UserError(
                f"dataset.validation: 'test' needs a test split; there is none in: {source.text}. "
                "Give the share of the training images to validate on, such as 0.1."
            )
        return source.train, source.test, None, "the test split is the validation split; no other test data"
    if source.val is not None:
        return (
            source.train,
            source.val,
            source.test,
            "the validation split is the data's own (its val/ folder)",
        )
    train, val = stratified(source.train, validation, seed, source.class_names)
    rule = f"{validation:.4g} of each class of the training split, drawn with seed {seed}"
    return train, val, source.test, rule


def _published(
    config: "DatasetConfig",
    data_root: Path,
    *,
    names: tuple[str, ...],
    channels: int,
    readers: tuple[Reader, ...],
    files: str,
) -> Source:
    """Load a dataset that keras.datasets knows: from local files, else through Keras' cache and network.

    Args:
        config: The experiment's `dataset:` section.
        data_root: See `load_dataset`.
        names: The official class names.
        channels: Of the published images.
        readers: Of the published files.
        files: These files in words, for messages.
    """
    image_format, cache_folder = _image_format(config, channels), data_root / CACHE_FOLDER
    path = local_path(config, data_root)
    if path.exists():
        npz_reader: Reader = partial(_read_npz_in, name=config.name)
        for reader in (npz_reader, *readers):
            arrays = reader(path)
            if arrays is not None:
                return source_of(arrays, names, image_format, cache_folder)
        if not subfolders(path):
            raise UserError(
                f"{shown(path)}: no {config.name} in there. It may hold:\n{_welcome(config.name, files)}"
            )
        return load_folder(path, image_format, config.on_bad_image, cache_folder, names)
    try:
        published = _download(config.name)
    except Exception as error:  # Keras raises a plain Exception where the network fails
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"dataset.name: {config.name}: no local files, and the download failed.\n"
            f"Tried: {shown(path)}/ (does not exist); keras.datasets.{config.name} ({reason[0]})\n"
            f"Make the folder {shown(path)}/ and put one of these into it:\n{_welcome(config.name, files)}\n"
            f"or point at such a folder elsewhere: make train EXP=... DATA_DIR=/path/to/{config.name}\n"
            "To try the program without any data, on scikit-learn's digits: make train EXP=quickstart"
        ) from error
    return source_of(published, names, image_format, cache_folder)


def _welcome(name: str, files: str) -> str:
    """Return the list of what a folder of a published dataset may hold."""
    return (
        f"  {files}\n"
        f"  {name}.npz with the arrays x_train, y_train, x_test, y_test\n"
        "  train/CLASS/*.png and test/CLASS/*.png, one folder for each class by its official name"
    )


def _read_npz_in(path: Path, name: str) -> Arrays | None:
    """Read an npz file given as such, or `<name>.npz` in a folder."""
    return read_npz(path / f"{name}.npz" if path.is_dir() else path)


def _download(name: str) -> Arrays:
    import keras

    train, test = getattr(keras.datasets, name).load_data()
    if keras.config.image_data_format() == "channels_first" and train[0].ndim == 4:
        train, test = ((np.moveaxis(images, 1, -1), labels) for images, labels in (train, test))
    return Arrays(train, test, f"keras.datasets.{name}")


def _digits(config: "DatasetConfig", data_root: Path) -> Source:
    """Load scikit-learn's bundled digits: 1,797 of 8x8 pixels in 17 shades."""
    from sklearn.datasets import load_digits

    if config.data_dir is not None:
        raise UserError("dataset.data_dir: digits come with scikit-learn; leave data_dir (DATA_DIR) out")
    bundle = load_digits()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    arrays = Arrays((images, bundle.target), None, "scikit-learn's bundled handwritten digits")
    return source_of(arrays, class_names.DIGITS, _image_format(config, 1), data_root / CACHE_FOLDER)


def _image_folder(config: "DatasetConfig", data_root: Path) -> Source:
    """Load a user's own class folders, or npz file."""
    path, cache_folder = local_path(config, data_root), data_root / CACHE_FOLDER
    if not path.exists():
        raise UserError(
            f"dataset.data_dir: {shown(path)} does not exist. Put class folders there (CLASS/*.jpg, or "
            "train/CLASS/*.jpg and test/CLASS/*.jpg), or point at yours:\n"
            "  make train EXP=... DATA_DIR=/path/to/images"
        )
    arrays = _read_npz_in(path, config.name)
    if arrays is None:
        return load_folder(path, _image_format(config, 3), config.on_bad_image, cache_folder)
    image_format = _image_format(config, arrays.train[0].shape[3] if arrays.train[0].ndim == 4 else 1)
    return source_of(arrays, arrays.class_names or numbered(arrays), image_format, cache_folder)


def local_path(config: "DatasetConfig", data_root: Path) -> Path:
    """Return where local files are looked for; a folder that was asked for must exist."""
    if config.data_dir is None:
        return data_root / config.name
    try:
        path = project_root() / Path(config.data_dir).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # too long, not to be looked into, or the home of nobody
        raise UserError(f"dataset.data_dir: cannot read {received(config.data_dir)}: {error}") from error
    if not exists:
        place = printable(shown(path))
        raise UserError(f"dataset.data_dir: {place} does not exist; give the folder that holds the images")
    return path


def _image_format(config: "DatasetConfig", channels: int) -> ImageFormat:
    size, channels = config.image_size, config.channels or channels
    return ImageFormat(size, channels, config.interpolation, config.resize, config.background_colour)


def _cifar(archive: str, train: tuple[str, ...], test: str, label_bytes: int) -> tuple[Reader, ...]:
    return (partial(read_cifar, archive=archive, train=train, test=test, label_bytes=label_bytes),)


LOADERS: dict[str, Loader] = {
    "cifar10": partial(
        _published,
        names=class_names.CIFAR10,
        channels=3,
        readers=_cifar(
            "cifar-10-binary.tar.gz", tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin", 1
        ),
        files="cifar-10-binary.tar.gz, or its data_batch_1.bin ... data_batch_5.bin and test_batch.bin",
    ),
    "cifar100": partial(
        _published,
        names=class_names.CIFAR100,
        channels=3,
        readers=_cifar("cifar-100-binary.tar.gz", ("train.bin",), "test.bin", 2),
        files="cifar-100-binary.tar.gz, or its train.bin and test.bin",
    ),
    "mnist": partial(
        _published,
        names=class_names.DIGITS,
        channels=1,
        readers=(read_idx,),
        files="{train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]",
    ),
    "fashion_mnist": partial(
        _published,
        names=class_names.FASHION_MNIST,
        channels=1,
        readers=(read_idx,),
        files="{train,t10k}-images-idx3-ubyte[.gz] and {train,t10k}-labels-idx1-ubyte[.gz]",
    ),
    "digits": _digits,
    "image_folder": _image_folder,
}
