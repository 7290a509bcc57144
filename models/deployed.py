"""A trained classifier as other programs want it: raw images in, class probabilities out, all in float32."""

import keras

from models.classifier import ImageClassifier


def in_float32(classifier: ImageClassifier, image_shape: tuple[int, int, int]) -> ImageClassifier:
    """Make a classifier again, with the same weights, to compute in float32 and without augmentation.

    The weights are float32 whatever a network computes in.

    Args:
        classifier: The trained one; it stays as it is.
        image_shape: (height, width, channels).

    Returns:
        The new classifier, not compiled.
    """
    config = classifier.get_config() | {"augmentation": []}
    for part in (config, config["network"]["config"], config["normalization"]["config"]):
        part["dtype"] = "float32"  # which a network gives to its layers
    fresh = ImageClassifier.from_config(config)
    fresh.build((None, *image_shape))
    for variable, source in zip(fresh.network.weights, classifier.network.weights, strict=True):
        variable.assign(source)
    return fresh


def with_probabilities(
    classifier: ImageClassifier, image_shape: tuple[int, int, int], temperature: float = 1.0
) -> keras.Model:
    """Put a softmax behind a classifier.

    Args:
        classifier: Images to logits; its weights are shared.
        image_shape: (height, width, channels).
        temperature: What the logits are divided by before the softmax.

    Returns:
        A plain Keras model from `images`, (batch, height, width, channels) uint8, to `probabilities`,
        (batch, classes) float32. Saved, it needs no class but those of this package to be loaded.
    """
    images = keras.Input(image_shape, dtype="uint8", name="images")
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    logits = classifier(images)
    if temperature != 1.0:
        logits = keras.layers.Rescaling(1.0 / temperature, dtype="float32", name="temperature")(logits)
    return keras.Model(images, softmax(logits), name="classifier_with_probabilities")
