"""CIFAR-10 itself, where a copy lies in data/cifar10 as class folders or official files."""

from pathlib import Path

import numpy as np
import pytest

from app.data.normalization import normalization_constants

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "data" / "cifar10").is_dir(), reason="no copy of CIFAR-10 in data/cifar10")
def test_cifar10_is_whole_in_official_order_and_has_the_known_constants(load):
    data = load("cifar10", data_dir=str(ROOT / "data" / "cifar10"))
    assert data.image_shape == (32, 32, 3)
    assert data.class_names[:3] == ("airplane", "automobile", "bird") and data.class_names[9] == "truck"
    assert [len(split) for split in (data.train, data.val, data.test)] == [45_000, 5_000, 10_000]
    assert data.as_json()["num_images_per_class"]["val"] == dict.fromkeys(data.class_names, 500)
    constants = normalization_constants("per_channel", data.train)
    # The constants in common use for the original pixels; a copy that went through JPEG is close to them.
    np.testing.assert_allclose(constants["mean"], [0.4914, 0.4822, 0.4465], atol=0.003)
    np.testing.assert_allclose(constants["deviation"], [0.2470, 0.2435, 0.2616], atol=0.006)
