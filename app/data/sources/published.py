"""Datasets that keras.datasets knows, and where local files of any are looked for.

Local files come first: `dataset.data_dir` (or DATA_DIR), else `data/<name>/` where it exists.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from app.config.dataset import DatasetConfig
from app.data.arrays import Arrays, source_of
from app.data.dataset import Source
from app.data.folders import load_folder
from app.data.images import ImageFormat
from app.data.listing import PART_FOLDERS, folders_of, subfolders
from app.data.sources.archives import Reader, read_npz
from app.errors import UserError
from app.machine import keras_home
from app.paths import data_root, project_root, shown
from app.wording import printable, received


def published(
    config: DatasetConfig, *, names: tuple[str, ...], channels: int, reader: Reader, files: str
) -> Source:
    """Load a dataset that keras.datasets knows: from local files, else through Keras' cache and network.

    `names` are the official class names; `reader` reads the published files, which `files` describes.
    """
    chosen, path, name = image_format(config, channels), local_path(config), config.name
    welcome = (
        f"  {files}\n"
        f"  {name}.npz with the arrays x_train, y_train, x_test, y_test\n"
        "  train/CLASS/*.png and test/CLASS/*.png, one folder for each class by its official name"
    )
    if path.exists():
        arrays = read_npz_in(path, name) or reader(path)
        if arrays is not None:
            return source_of(arrays, names, chosen)
        known = {*PART_FOLDERS, *(folder.lower() for folder in folders_of(names))}
        if not path.is_dir() or not any(folder.lower() in known for folder in subfolders(path)):
            raise UserError(f"{shown(path)}: no {name} in there. A folder may hold:\n{welcome}")
        return load_folder(path, chosen, config, names)
    try:
        arrays = _download(name)
    except Exception as error:  # Keras raises a plain Exception where the network fails
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"dataset.name: {name}: no local files, and the download failed.\n"
            f"Tried: {shown(path)}/ (does not exist); keras.datasets.{name} ({reason[0]})\n"
            f"Make the folder {shown(path)}/ and put one of these into it:\n{welcome}\n"
            f"or point at such a folder elsewhere: make train EXP=... DATA_DIR=/path/to/{name}\n"
            "To try the program without any data, on scikit-learn's digits: make train EXP=quickstart"
        ) from error
    return source_of(arrays, names, chosen)


def read_npz_in(path: Path, name: str) -> Arrays | None:
    """Read an npz file given as such, or `<name>.npz` in a folder."""
    return read_npz(path / f"{name}.npz" if path.is_dir() else path)


def _download(name: str) -> Arrays:
    from app.backend import keras

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no place for a lock: then without
            folder = keras_home(os.environ)
            folder.mkdir(parents=True, exist_ok=True)
            # Keras unpacks at every load; two processes at once would truncate each other's files.
            fcntl.flock(stack.enter_context(open(folder / ".trainer-lock", "wb")), fcntl.LOCK_EX)
        train, test = getattr(keras.datasets, name).load_data()
    return Arrays(train, test, f"keras.datasets.{name}")


def local_path(config: DatasetConfig) -> Path:
    """Return where local files are looked for; a folder that is asked for or a user's own must exist."""
    if config.data_dir is None:
        path = data_root() / config.name
        if config.name == "image_folder" and not path.exists():
            raise UserError(
                f"dataset.data_dir: {shown(path)} does not exist. Put class folders there (CLASS/*.jpg, or "
                "train/CLASS/*.jpg and test/CLASS/*.jpg), or point at yours:\n"
                "  make train EXP=... DATA_DIR=/path/to/images"
            )
        return path
    try:
        path = project_root() / Path(config.data_dir).expanduser()
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # too long, not to be looked into, or the home of nobody
        raise UserError(f"dataset.data_dir: cannot read {received(config.data_dir)}: {error}") from error
    if not exists:
        place = printable(shown(path))
        raise UserError(
            f"dataset.data_dir: {place} does not exist; give the folder that holds the images. If a run was "
            "trained on it, write its new place into data_dir of the run's experiment.yaml; that the images "
            "are the same is checked"
        )
    if config.name == "image_folder" and path.is_file() and path.suffix != ".npz":
        raise UserError(
            f"dataset.data_dir: {printable(shown(path))} is a file; unpack it, and give the folder that "
            "holds one folder for each class. It may also be an .npz file"
        )
    return path


def image_format(config: DatasetConfig, channels: int) -> ImageFormat:
    """Return the format that an experiment asks for; `channels` are those of the stored images."""
    size, channels = config.image_size, config.channels or channels
    return ImageFormat(size, channels, config.interpolation, config.resize, config.background_colour)
