"""Self-contained HTML pages: pictures inside, nothing loaded from outside, legible on any screen."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from app.files import write_text

LARGE_BYTES = 300_000  # a picture above this is kept in 256 colours
WIDE_PIXELS = 1200

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --faint: #5f6368; --line: #d8d8d8;
  --card: #f6f6f4; --link: #0058a3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e6; --paper: #161616; --faint: #a8a8a4;
  --line: #3a3a3a; --card: #222222; --link: #7cbcf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p { margin: .6rem 0; } .faint { color: var(--faint); } a { color: var(--link); }
figure { margin: 1rem 0; } figcaption { color: var(--faint); font-size: .9rem; }
img { width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 4px;
  display: block; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 0 1rem; align-items: start; }
@media print { .wide img { min-width: 0 !important; } }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr));
  gap: .75rem; margin: 1rem 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.4rem; line-height: 1.2; }
.tile span { color: var(--faint); font-size: .85rem; }
.wide { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .92rem; overflow-wrap: normal; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number, .lines td { white-space: nowrap; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem;
  overflow-x: auto; font: 13px/1.4 ui-monospace, monospace; white-space: pre; }
details summary { cursor: pointer; color: var(--link); }
"""


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """Write a page of HTML atomically, of parts that the other functions of this module return."""
    title = html.escape(title)
    write_text(
        path,
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # or browsers ask for one
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{title}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n",
    )


def heading(text: str) -> str:
    """Return the heading of a section."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, *, faint: bool = False) -> str:
    """Return a paragraph of plain text."""
    kind = ' class="faint"' if faint else ""
    return f"<p{kind}>{html.escape(text)}</p>"


def code(text: str) -> str:
    """Return text as it stands, in a box that scrolls."""
    return f"<pre>{html.escape(text.rstrip())}</pre>"


def folded(summary: str, content: str) -> str:
    """Return HTML that is hidden until a click on `summary`."""
    return f"<details><summary>{html.escape(summary)}</summary>\n{content}\n</details>"


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Return the numbers that matter most: large values, each over what it is."""
    cells = [
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(words)}</span></div>'
        for value, words in values
    ]
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = (), *, one_line: bool = False
) -> str:
    """Return a table that scrolls sideways where it is too wide; the columns `numbers` are flush right.

    With `one_line` no cell is broken into lines; a head without any text is left out.
    """

    def line(cells: Sequence[str], kind: str) -> str:
        number = ' class="number"'
        return "".join(
            f"<{kind}{number * (column in numbers)}>{html.escape(cell)}</{kind}>"
            for column, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    top = f"<tr>{line(head, 'th')}</tr>\n" if any(head) else ""
    lines = ' class="lines"' * one_line
    return f'<div class="wide"><table{lines}>\n{top}{body}\n</table></div>'


def side_by_side(pictures: Iterable[str]) -> str:
    """Return pictures in as many columns as have room."""
    return f'<div class="pictures">{"".join(pictures)}</div>'


def picture(path: Path, words: str, caption: str = "") -> str:
    """Return a PNG file as part of the page, a large one in 256 colours.

    `words` say what it shows to those who cannot see it; the caption stands below it. One of more than
    WIDE_PIXELS scrolls where the screen is too narrow for it to be legible.
    """
    try:
        content = path.read_bytes()
        with Image.open(path) as image:
            width, height = image.size
            if len(content) > LARGE_BYTES:
                small = io.BytesIO()
                image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
                content = min(content, small.getvalue(), key=len)
    except (OSError, ValueError, SyntaxError) as error:  # Pillow calls a broken chunk a syntax error
        return paragraph(f"{path.name} cannot be shown ({error})", faint=True)
    data = base64.b64encode(content).decode()
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    wide, least = "", ""
    if width > WIDE_PIXELS:  # letters of 8.5 points in 150 dots an inch are then ten pixels high
        wide, least = ' class="wide"', f' style="min-width: {0.55 * width:.0f}px"'
    return (
        f'<figure><div{wide}><img src="data:image/png;base64,{data}" alt="{html.escape(words)}" '
        f'width="{width}" height="{height}"{least}></div>{below}</figure>'
    )
