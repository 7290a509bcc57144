"""A user's own images: one folder a class, or an npz file."""

from app.config.dataset import DatasetConfig
from app.data.arrays import numbered, source_of
from app.data.dataset import Source
from app.data.folders import load_folder
from app.data.sources import dataset
from app.data.sources.published import image_format, local_path, read_npz_in


@dataset("image_folder")
def _image_folder(config: DatasetConfig) -> Source:
    """Load a user's own class folders, or npz file."""
    path = local_path(config)
    arrays = read_npz_in(path, config.name)
    if arrays is None:
        return load_folder(path, image_format(config, 3), config)
    chosen = image_format(config, arrays.train[0].shape[3] if arrays.train[0].ndim == 4 else 1)
    return source_of(arrays, arrays.class_names or numbered(arrays), chosen)
