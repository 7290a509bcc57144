"""scikit-learn's handwritten digits, which need no download."""

import numpy as np

from app.config.dataset import DatasetConfig
from app.data.arrays import Arrays, source_of
from app.data.dataset import Source
from app.data.sources import dataset
from app.data.sources.published import image_format
from app.errors import UserError


@dataset("digits")
def _digits(config: DatasetConfig) -> Source:
    """Load scikit-learn's bundled digits: 1,797 of 8x8 pixels in 17 shades."""
    from sklearn.datasets import load_digits

    if config.data_dir is not None:
        raise UserError(
            "dataset.data_dir: digits come with scikit-learn; leave data_dir (DATA_DIR) out. Images of your "
            "own take an experiment for them, such as EXP=finetune_folder"
        )
    bundle = load_digits()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    arrays = Arrays((images, bundle.target), None, "scikit-learn's bundled handwritten digits")
    return source_of(arrays, tuple("0123456789"), image_format(config, 1))
