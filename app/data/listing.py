"""Class folders: which images there are and what their labels are, without opening one.

    folder/train/<class>/**.jpg    with folder/test/ and folder/val/ where they exist, or
    folder/<class>/**.jpg          one tree, from which validation data is drawn

The folders of the splits have the names in PART_FOLDERS, in upper or lower case. One such name among the
folders makes all of them splits; what does not fit that, such as training_set and test_set, is refused,
because it may be meant in two ways.
Classes are in natural order ("2" before "10"), images in natural order of their paths within a class.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.data.images import SUFFIXES
from app.errors import UserError
from app.paths import shown
from app.wording import composed, counted, printable

PART_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# What macOS adds to archives, Synology to every folder, and a disk or share has at its root.
IGNORED = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
MAX_SHOWN = 12  # folders named in a message


@dataclass(frozen=True)
class FolderIndex:
    """The image files below a folder; parts lie one after the other, each sorted by label."""

    root: Path
    class_names: tuple[str, ...]  # in the order of the labels
    files: list[str]  # paths relative to `root`
    labels: np.ndarray  # one for each file, int32
    parts: dict[str, slice]  # "train", and "val" and "test" where they exist, to their place in `files`
    num_ignored: int  # files that are no images by their names


def natural_key(text: str) -> tuple[list[str | int], str]:
    """Return a sort key under which numbers within a text count as numbers."""
    pieces: list[str | int] = list(re.split("([0-9]+)", text))
    pieces[1::2] = [int(piece) for piece in pieces[1::2]]
    return pieces, text


def index_folder(root: Path, official: Sequence[str] | None = None) -> FolderIndex:
    """List the images below `root`.

    Hidden files and folders and those of IGNORED are left out; links are followed once, and never upwards.

    Classes are the `official` names, in the order of their labels, which the folders must have; by default
    the folders' own names in natural order.

    Raises:
        UserError: The folder is missing, empty or unreadable, has no class folders, a single class, a class
            without images, or links that lead nowhere in place of class folders; splits and classes, or the
            names of classes, cannot be told apart; parts have different classes, or not the official ones;
            splits lie inside classes.
    """
    part_folders = _part_folders(root, official)
    train, order = f"{shown(part_folders['train'])}/", subfolders(part_folders["train"])
    for folder in part_folders.values():
        names = subfolders(folder)
        if not names:
            raise UserError(f"{shown(folder)}: no class folders; images must lie in one folder a class")
        if len(order) == len(names) == 1 and (inner := subfolders(folder / names[0])):
            only = f"{shown(folder)}: holds one folder only, {printable(names[0])}/, which holds "
            advice = "If these are the classes or splits, move them up, or name that folder as DATA_DIR"
            raise UserError(f"{only}{counted(len(inner), 'folder')}. {advice}")
        _compare(f"{shown(folder)}/", names, train, order, "All splits need the same class folders")
    if official is not None:
        names, order = order, folders_of(official)
        advice = "Folders have the official names; classes of your own are `dataset.name: image_folder`"
        _compare(train, names, "the dataset", order, advice)
    _check_names(root, order)
    files: list[str] = []
    labels: list[int] = []
    parts: dict[str, slice] = {}
    empty: list[str] = []
    num_ignored = 0
    for part, folder in part_folders.items():
        start = len(files)
        for label, name in enumerate(order):
            images, num_others = _image_files(folder / name, root)
            num_ignored += num_others
            files += images
            labels += [label] * len(images)
            if not images:
                empty.append(f"{printable(shown(folder / name))} ({counted(num_others, 'other file')})")
        parts[part] = slice(start, len(files))
    if empty:
        where = "" if len(part_folders) == 1 else " from all splits"
        raise UserError(
            f"class folders without images: {', '.join(empty)}. Add images, or save those of other kinds as "
            f"one of {' '.join(sorted(SUFFIXES))}, or remove the class{where}."
        )
    _check_no_parts_inside(root, files, 0 if part_folders == {"train": root} else 1)
    class_names = tuple(order if official is None else official)
    return FolderIndex(root, class_names, files, np.array(labels, np.int32), parts, num_ignored)


def _check_names(root: Path, order: Sequence[str]) -> None:
    if len(order) == 1:
        raise UserError(f"{shown(root)}: one class only ({printable(order[0])!r}); a classifier needs two")
    if unnameable := [printable(name) for name in order if not name.isprintable()]:
        raise UserError(
            f"{shown(root)}: class folders whose names are no plain text: {', '.join(unnameable)}"
        )
    forms = Counter(map(composed, order))
    if alike := [name for name in order if forms[composed(name)] > 1]:
        raise UserError(
            f"{shown(root)}: class folders whose names look the same, in different Unicode forms: "
            f"{', '.join(map(ascii, alike))}; rename or merge them"
        )


def _check_no_parts_inside(root: Path, files: Sequence[str], depth: int) -> None:
    """Refuse images in CLASS/test/, which would be trained on; classes are `depth` folders below the root."""
    inside = {tuple(parts[: depth + 2]) for file in files if len(parts := file.split(os.sep)) > depth + 2}
    if named := sorted(printable("/".join(each)) for each in inside if each[-1].lower() in PART_FOLDERS):
        raise UserError(
            f"{shown(root)}: classes hold folders named like splits: {', '.join(named)}. Splits lie outside "
            "of classes: train/CLASS/, val/CLASS/, test/CLASS/. If they are none, rename them."
        )


def folders_of(official: Sequence[str]) -> list[str]:
    """Return the names that class folders of a published dataset have."""
    return [name.replace("/", "_") for name in official]


def _part_folders(root: Path, official: Sequence[str] | None) -> dict[str, Path]:
    """Return the folder of each part: train/, val/ and test/, or the root itself as "train"."""
    children = subfolders(root)
    parts = [PART_FOLDERS.get(name.lower()) for name in children]
    # "train" is a class of CIFAR-100.
    if set(children) == set(folders_of(official or ())) or not (any(parts) or _alluded(children)):
        return {"train": root}
    if None in parts or "train" not in parts or len(set(parts)) < len(parts):
        named = ", ".join(f"{printable(name)}/" for name in children[:MAX_SHOWN])
        more = f" and {len(children) - MAX_SHOWN} more" if len(children) > MAX_SHOWN else ""
        raise UserError(
            f"{shown(root)}: cannot tell whether these folders are splits or classes: {named}{more}. "
            "There may be\n  one folder a class, none of them named like a split, or\n"
            "  the folders of the splits and nothing else: one train/ (or training/) and, where they exist, "
            "one val/ (valid/, validation/) and one test/ (testing/), in upper or lower case, each with one "
            "folder a class\nIf all of these are classes, put them into a folder train/."
        )
    folders = {part: root / name for part, name in zip(parts, children, strict=True) if part}
    return {part: folders[part] for part in ("train", "val", "test") if part in folders}


def _alluded(names: Sequence[str]) -> bool:
    """Return whether folders are named after splits: all, or some otherwise alike, as x_train and x_test."""
    words = [[word.removesuffix("set") for word in re.split("[^a-z]+", name.lower())] for name in names]
    found = [{PART_FOLDERS[word] for word in each if word in PART_FOLDERS} for each in words]
    alike: dict[tuple[str, ...], set[str]] = {(): set().union(*found) if all(found) else set()}
    for each, parts in zip(words, found, strict=True):
        rest = tuple(word for word in each if word and word not in PART_FOLDERS)
        alike.setdefault(rest, set()).update(parts)
    return any("train" in parts and len(parts) > 1 for parts in alike.values())


def subfolders(folder: Path) -> list[str]:
    """Return the names of the visible folders in `folder`, in natural order."""
    try:
        visible = [entry for entry in os.scandir(folder) if _visible(entry.name)]
        # Left out in silence, a class whose folder cannot be reached would be missing from the network.
        _refuse_broken(folder, [e.name for e in visible if e.is_symlink() and not os.path.exists(e.path)])
        return sorted((entry.name for entry in visible if entry.is_dir()), key=natural_key)
    except OSError as error:
        raise UserError(f"{shown(folder)}: cannot read the data folder: {error.strerror}") from error


def _refuse_broken(folder: Path, links: Sequence[str]) -> None:
    if links:
        raise UserError(
            f"{shown(folder)}: links that lead nowhere: {', '.join(map(printable, sorted(links)))}. "
            "Mend or remove them."
        )


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in IGNORED


def _compare(place: str, names: list[str], other_place: str, expected: list[str], advice: str) -> None:
    surplus = [name for name in names if name not in set(expected)]
    missing = [name for name in expected if name not in set(names)]
    if surplus or missing:
        alike = {composed(name.strip()) for name in surplus} & {composed(name.strip()) for name in missing}
        show, hint = (
            (ascii, "; some look the same: blanks or Unicode forms differ") if alike else (printable, "")
        )
        raise UserError(
            f"{place} and {other_place} have different classes: only in {place}: "
            f"{', '.join(map(show, surplus)) or 'none'}; only in {other_place}: "
            f"{', '.join(map(show, missing)) or 'none'}{hint}. {advice}."
        )


def _image_files(folder: Path, root: Path) -> tuple[list[str], int]:
    """Return the image files below a class folder, relative to `root`, and the number of other files."""
    files: list[str] = []
    # A link up to the data folder would bring in the other classes' images.
    for current, names in visible_files(folder, (root, *folder.resolve().parents)):
        here = os.path.join(os.path.relpath(current, root), "")  # once for all files: it takes its time
        files += [here + name for name in names]
    images = [name for name in files if is_image(name)]
    others = set(files).difference(images)
    _refuse_broken(folder, [name for name in others if not os.path.exists(root / name)])
    return sorted(images, key=natural_key), len(others)


def is_image(path: str) -> bool:
    """Return whether a file is an image by its name."""
    return os.path.splitext(path)[1].lower() in SUFFIXES


def visible_files(
    folder: str | Path, closed: Iterable[str | Path] = ()
) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield each folder from `folder` downwards with its visible files; links are followed once.

    Folders that are links to `closed` ones stay out.

    Raises:
        UserError: A folder cannot be read.
    """
    visited = {_identity(each) for each in closed}

    def fail(error: OSError) -> None:
        place = printable(shown(Path(error.filename)))
        raise UserError(f"{place}: cannot read the folder: {error.strerror}") from error

    for current, subfolders, names in os.walk(folder, followlinks=True, onerror=fail):
        if _identity(current) in visited:
            subfolders.clear()  # a link back to a folder that was seen
            continue
        visited.add(_identity(current))
        subfolders[:] = filter(_visible, subfolders)
        yield current, filter(_visible, names)


def _identity(folder: str | Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
