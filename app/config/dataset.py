"""The section `dataset` of an experiment file."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from app.config.schedules import Section, one_rule

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
Level = Annotated[int, Field(ge=0, le=255)]
Text = Annotated[str, Field(min_length=1)]
Sampler = Literal["balanced", "square_root"]


class Fold(Section):
    """One of several equal parts of the training split, on which a network is validated in its turn."""

    of: Annotated[int, Field(ge=2, le=1000)] = Field(description="Folds in all.")
    index: Annotated[int, Field(ge=0)] = Field(description="Which of them, from 0.")

    @field_validator("index")
    @classmethod
    def _index_is_one_of_them(cls, value: int, info: ValidationInfo) -> int:
        if value >= info.data.get("of", value + 1):
            raise ValueError(f"must be below {info.data['of']}, the folds in all")
        return value


class DatasetConfig(Section):
    """Which images, in which size, and how many of them are held out."""

    name: Text = Field(description="Which images; `image_folder` is your own, in one folder a class.")
    data_dir: Text | None = Field(
        None, description="Folder with the images; by default `data/<name>`, downloaded where possible."
    )
    image_size: tuple[Pixels, Pixels] | None = Field(
        None, description="`[height, width]` in pixels; required where images differ in size."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1 for gray, 3 for RGB; by default the dataset's, of your own class folders 3."
    )
    interpolation: Literal["bilinear", "nearest", "bicubic", "lanczos", "area"] = Field(
        "bilinear", description="How images are resized."
    )
    resize: Literal["stretch", "crop"] = Field(
        "stretch", description="Stretch images to `image_size`, or scale them and crop the centre."
    )
    background: Annotated[
        Level | tuple[Level, Level, Level],
        one_rule("must be a gray from 0 to 255, or [red, green, blue] of these"),
    ] = Field(
        255, description="Colour behind transparent pixels: a gray from 0 to 255, or `[red, green, blue]`."
    )
    on_bad_image: Literal["fail", "skip"] = Field(
        "fail", description="Stop and name every unreadable file, or leave them out and list them."
    )
    validation: Annotated[
        Annotated[float, Field(gt=0, lt=1)] | Literal["test"],
        one_rule("must be a fraction between 0 and 1 (both excluded) or 'test'"),
    ] = Field(
        0.1,
        description="Fraction of each class of the training split held out for validation, which a folder "
        "val/ overrides; or `test`.",
    )
    fold: Fold | None = Field(
        None,
        description="Validate on one fold of the training split, in place of `validation` (`make folds`).",
    )
    exclude: Text | None = Field(
        None, description="CSV file with training images to leave out, as `make labels` writes it."
    )
    relabel: Text | None = Field(
        None, description="CSV file with training images that are of another class, `suggested` in it."
    )
    train_share: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Train on fewer images: of each class this fraction of the training split, at most what "
        "validation leaves.",
    )
    split_seed: Seed = Field(
        0, description="Draws validation images, folds and the fraction `train_share`; `seed` does not."
    )
    sampler: Sampler | None = Field(
        None,
        description="How often classes appear in an epoch of as many images: all equally often, or by the "
        "square root of their number of images; by default as often as they have images.",
    )

    @field_validator("channels", mode="before")
    @classmethod
    def _channels_is_a_number(cls, value: object) -> object:
        """Python's `True == 1` would let true through."""
        if value is not None and (type(value) is not int or value not in (1, 3)):
            raise ValueError("must be 1 or 3")
        return value

    @property
    def validates_on_test(self) -> bool:
        """Whether the test split serves for validation."""
        return self.validation == "test" and self.fold is None

    @property
    def background_colour(self) -> tuple[int, int, int]:
        """The background as RGB."""
        return (self.background,) * 3 if isinstance(self.background, int) else self.background
