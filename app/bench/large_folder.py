"""A large folder of photographs: the first start, one that is killed half-way, and the second, measured.

`python -m app.bench.large_folder FOLDER --images 20000` makes images in FOLDER/photos, unless there are some,
keeps decoded ones in FOLDER/data/.cache, and prints what it measures. Delete FOLDER afterwards.
"""

import argparse
import contextlib
import io
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.bench.json_worker import JsonWorker
from app.config.dataset import DatasetConfig
from app.data.datasets import load_dataset
from app.data.listing import index_folder
from app.data.pipeline import training_batches
from app.errors import UserError
from app.files import write_json
from app.machine import free_disk_bytes, status_megabytes
from app.paths import HOME_VARIABLE

CLASS_WEIGHTS = (1, 1, 1, 1, 3, 3, 3, 9, 9, 9)  # of as many class folders, in numbers of images
SHORT_SIDE, LONG_SIDE = (150, 1200), (200, 1600)  # smallest and largest, in pixels
MEAN_FILE_BYTES = 150_000  # a generous guess, to see beforehand whether the disk suffices
BATCH_SIZE = 32


def make_photos(folder: Path, count: int) -> None:
    """Write images of mixed sizes, modes and formats into ten class folders, or a level or two below them.

    Sides are log-uniform, from 200 x 150 to 1600 x 1200 pixels. Of 1,000 files about 50 are gray, 20 CMYK, 50
    turned by EXIF, 30 PNG, 30 WebP, and 2 damaged; all others are RGB JPEG.
    """
    if free_disk_bytes(folder) < 2 * count * MEAN_FILE_BYTES:
        raise UserError(f"{folder}: too little space for {count * MEAN_FILE_BYTES / 1e9:.1f} GB of images")
    rng = np.random.default_rng(0)
    scenes = [_scene(rng) for _ in range(6)]
    for number, label in enumerate(rng.choice(10, count, p=np.divide(CLASS_WEIGHTS, sum(CLASS_WEIGHTS)))):
        fraction = rng.random()
        sides = [round(low * (high / low) ** fraction) for low, high in (SHORT_SIDE, LONG_SIDE)]
        width, height = sides if rng.random() < 0.3 else sides[::-1]
        scene = scenes[rng.integers(len(scenes))]
        left, top = (int(rng.integers(free + 1)) for free in np.subtract(scene.size, (width, height)))
        suffix, content = _encoded(scene.crop((left, top, left + width, top + height)), rng.random())
        parts = ["", f"{2015 + number % 8}", f"{2015 + number % 8}/{number % 12 + 1:02}"][number % 3]
        place = folder / f"class {label}" / parts
        place.mkdir(parents=True, exist_ok=True)
        (place / f"IMG_{number:06}{suffix}").write_bytes(content)


def _scene(rng: np.random.Generator) -> Image.Image:
    """Draw what large crops are taken from: coarse structure and finer one on top of it."""
    side, total = LONG_SIDE[1] + 200, np.zeros((LONG_SIDE[1] + 200,) * 2 + (3,), np.float32)
    for cells, strength in ((5, 60), (40, 25), (300, 12)):
        noise = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        pixels = np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        total += (pixels - 127) * (strength / 127)
    return Image.fromarray((total + 127).clip(0, 255).astype(np.uint8))


def _encoded(image: Image.Image, kind: float) -> tuple[str, bytes]:
    """Return the suffix and content of a file; `kind`, from 0 to 1, decides which."""
    suffix = ".jpg"
    options: dict[str, Any] = {"format": "JPEG", "quality": 85}
    if kind < 0.05:
        image = image.convert("L")
    elif kind < 0.07:
        image = image.convert("CMYK")
    elif kind < 0.12:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # orientation: to be turned by 90 degrees
    elif kind < 0.15:
        suffix, options = ".png", {"format": "PNG", "compress_level": 1}
    elif kind < 0.18:
        suffix, options = ".webp", {"format": "WEBP", "method": 0}
    image.save(file := io.BytesIO(), **options)
    return suffix, file.getvalue()[: -5000 if kind > 0.998 else None]


def measure(folder: Path, image_size: int) -> dict[str, dict[str, float]]:
    """Return what each start took: first, second, after a change of a file, killed, and after the kill."""
    cache = folder / "data" / ".cache"

    def start(kill_after: float | None = None) -> dict[str, float]:
        arguments = [folder, image_size, time.time()]
        home = {HOME_VARIABLE: str(folder)}
        worker = JsonWorker("large folder", "app.bench.large_folder", *arguments, folder=folder, **home)
        with contextlib.closing(worker):
            if kill_after is not None:
                time.sleep(kill_after)
                worker.process.kill()
                return {"killed after, s": kill_after, "cache, MB": _megabytes(cache)}
            return worker.answer() | {"cache, MB": _megabytes(cache)}

    shutil.rmtree(cache, ignore_errors=True)  # no more: FOLDER/data may be a user's
    found = {"first start": start()}
    found["second start"] = start()
    (folder / "photos" / index_folder(folder / "photos").files[0]).touch()  # decoded anew for its time
    found["after a file was touched"] = start()
    shutil.rmtree(cache, ignore_errors=True)
    found["killed"] = start(found["first start"]["loaded, s"] / 2)
    found["after the kill"] = start()
    return found


def answers(folder: str, image_size: int, began: float) -> Iterator[dict[str, float]]:
    """Load the images as a training does, and yield the seconds from the start of the process."""
    seconds, photos = {"imports, s": time.time() - began}, (Path(folder) / "photos").resolve()
    config = DatasetConfig(
        name="image_folder",
        data_dir=str(photos),
        image_size=(image_size, image_size),
        on_bad_image="skip",
    )
    with _peak_memory() as peak:
        index_folder(photos)
        seconds["indexed, s"] = time.time() - began
        dataset = load_dataset(config)
        seconds["loaded, s"] = time.time() - began
        dataset.as_json()  # which counts duplicates
        seconds["described, s"] = time.time() - began
    next(iter(training_batches(dataset.train, seed=0, batch_size=BATCH_SIZE, epochs=1)))
    seconds["first batch, s"] = time.time() - began
    seconds["of the processor, s"] = time.process_time()
    images = sum(map(len, dataset.splits.values()))
    yield seconds | {"images": images, "bad": len(dataset.skipped), "own memory, MB": max(peak)}


@contextlib.contextmanager
def _peak_memory() -> Iterator[list[float]]:
    """Yield a list that gets, every 50 ms, the memory in MB that is the process's own: no mapped files."""
    found, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            found.append(status_megabytes("RssAnon"))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _megabytes(folder: Path) -> float:
    """Return what a folder takes on disk; files may have holes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    """Make the images, measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m app.bench.large_folder")
    parser.add_argument("folder", type=Path)
    parser.add_argument("image_size", type=int, nargs="?", default=160)
    parser.add_argument("--images", type=int, default=20_000)
    options = parser.parse_args()
    photos = options.folder / "photos"
    if not photos.exists():
        began = time.monotonic()
        make_photos(photos, options.images)
        print(f"made in {time.monotonic() - began:.0f} s, {_megabytes(photos):,.0f} MB", file=sys.stderr)
    found = measure(options.folder, options.image_size)
    write_json(options.folder / "measured.json", found)
    for name, values in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:,.1f}" for key, value in values.items()))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
