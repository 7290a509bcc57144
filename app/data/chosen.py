"""Images that a user names: a file, a folder or a pattern."""

import glob
import os
from pathlib import Path
from typing import TextIO

from app.data.images import SUFFIXES
from app.data.listing import IGNORED, is_image, natural_key, visible_files
from app.errors import UserError
from app.wording import clipped, counted, printable


def find_images(text: str, out: TextIO | None = None) -> list[Path]:
    """Return the files that `text` names, in natural order.

    Args:
        text: A file, whatever its suffix; a folder, searched with everything below it but hidden files; or
            a pattern with `*`, `?`, `[...]` or `**`.
        out: Receives how many other files were found, if there are any.

    Raises:
        UserError: There is no such thing, or no image by its suffix in it.
    """
    name, place = os.path.expanduser(text), "this pattern finds"
    if os.path.isdir(name):
        found = [os.path.join(here, file) for here, files in visible_files(name) for file in files]
        place = "this folder holds"
    elif os.path.lexists(name):
        return [Path(name)]
    elif glob.has_magic(name):
        # Leading folders that exist, such as "photos [2025]", stand for themselves.
        parts = Path(name).parts
        fixed = next(n for n in range(len(parts), -1, -1) if not n or os.path.isdir(os.path.join(*parts[:n])))
        escaped = [*map(glob.escape, parts[:fixed]), *parts[fixed:]]
        found = [
            path
            for path in set(glob.glob(os.path.join(*escaped), recursive=True))
            if not os.path.isdir(path) and not {*IGNORED} & {*Path(path).parts[fixed:]}
        ]
    else:
        raise UserError(
            f"IMAGES={shown_pattern(text)}: no such file or folder. It may be an image, a folder of images, "
            'or a pattern such as "photos/**/*.jpg"'
        )
    images = [path for path in found if is_image(path)]
    if not images:
        others = f"none of the {len(found):,} files that {place} is" if found else f"{place} no file that is"
        suffixes = " ".join(sorted(SUFFIXES))
        raise UserError(f"IMAGES={shown_pattern(text)}: {others} an image by its name ({suffixes})")
    if out and len(images) < len(found):
        kinds = {os.path.splitext(each)[1] or "no suffix" for each in found if not is_image(each)}
        ignored = counted(len(found) - len(images), "other file")
        print(f"{ignored} ignored ({printable(', '.join(sorted(kinds)))})", file=out)
    return [Path(path) for path in sorted(images, key=natural_key)]


def shown_pattern(text: str) -> str:
    """Return what a user named, fit for a message."""
    return clipped(printable(text), 200)
