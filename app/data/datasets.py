"""Loads a dataset by name and sets its validation images apart."""

from pathlib import Path

from app.config.dataset import DatasetConfig
from app.data.dataset import Dataset, Source, Split, fingerprint
from app.data.sources import LOADERS
from app.data.sources.published import CACHE_FOLDER
from app.data.splits import stratified, subsample
from app.data.store import remove_stale_temporaries
from app.errors import UserError


def load_dataset(config: DatasetConfig, data_root: Path) -> Dataset:
    """Load a dataset, uint8 images of one size, and set its validation images apart.

    `<name>/` is looked for in `data_root`, whose `.cache/` takes decoded images that are too many for memory.

    Raises:
        UserError: Whatever is wrong with the files or missing.
    """
    remove_stale_temporaries(data_root / CACHE_FOLDER)
    source = LOADERS[config.name](config, data_root)
    train, val, test, rule = _divide(source, config.validation, config.split_seed)
    if (fraction := config.train_share) is not None:
        train = subsample(train, fraction, len(source.train), config.split_seed, len(source.class_names))
        rule += f"; {fraction:.4g} of the training split to train on"
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
    """Return training, validation and test split, and a description of the rule."""
    if isinstance(validation, str):
        if source.test is None:
            raise UserError(
                f"dataset.validation: 'test' needs a test split; there is none in: {source.text}. "
                "Give the fraction of the training images to validate on, such as 0.1."
            )
        return source.train, source.test, None, "the test split is the validation split; no other test data"
    if source.val is not None:
        rule = "the validation split is the data's own (its val/ folder)"
        return source.train, source.val, source.test, rule
    train, val = stratified(source.train, validation, seed, source.class_names)
    rule = f"{validation:.4g} of each class of the training split, drawn with seed {seed}"
    return train, val, source.test, rule
