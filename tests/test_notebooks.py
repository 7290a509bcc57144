"""Every notebook runs from top to bottom, on a copy, into a folder that goes away.

`python tests/test_notebooks.py` runs them likewise and stores what they show in the notebooks themselves, for
those who read them on the web; `python tests/test_notebooks.py 02 03` only those whose names begin so.
"""

import base64
import io
import os
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STORED_WIDTH, STORED_COLOURS = 1000, 64  # of pictures: a notebook is to stay small
# What the test changes in the cells, so that little is trained; each text occurs once.
SMALLER = {
    "01": [("overrides=[]", 'overrides=["training.epochs=1", "dataset.train_share=0.3"]')],
    "02": [
        ("epochs: 6", "epochs: 1"),
        ("validation: 0.2}", "validation: 0.2, train_share: 0.3}"),
        (', "shallow_res_flowers")', ")"),
        # All ten are drawn in test_architectures.py and counted in test_zoo.py.
        ("published_networks()[:10]", "published_networks()[:4]"),
    ],
    "03": [
        ("epochs: 6, batch_size: 32}", "epochs: 2, batch_size: 32}"),
        ("validation: 0.2}", "validation: 0.2, train_share: 0.1}"),
        ("recipe = [", 'recipe = ["model.depth=8", '),
    ],
    "04": [
        ("epochs: 4", "epochs: 2"),
        ("[128, 128]", "[64, 64]"),
        ("(128, 128)", "(64, 64)"),
        ("zip(digits.images, digits.target", "zip(digits.images[:300], digits.target[:300]"),
    ],
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def make_home(home):
    """Fill a project folder for notebooks; return the environment in which they find it, and nothing else."""
    shutil.copytree(ROOT / "experiments", home / "experiments")
    # One kernel specification of our own, for this very interpreter, whatever the user has installed.
    kernels = home / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        ' "display_name": "Python 3", "language": "python"}'
    )
    folders = ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "KERAS_HOME")
    return {
        **{name: str(home / name.lower()) for name in folders},
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # the list of fonts, which takes long to make anew
        "JUPYTER_PATH": str(home / "jupyter"),
        "TRAINER_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
    }


def executed(path, home, changes=()):
    """Run a notebook from top to bottom, with these changes to its text; return it with what it showed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Jupyter's own, at import and at start
        import nbformat
        from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for old, new in changes:
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and old in cell.source)
        cell.source = cell.source.replace(old, new)
    resources = {"metadata": {"path": str(home)}}
    client = NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources=resources, record_timing=False,
        coalesce_streams=True,
    )  # fmt: skip
    client.execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs), "no picture was shown"
    said = "\n".join(output.text for output in outputs if output.get("name") == "stderr")
    assert not said, f"on the standard error: {said}"
    return notebook


def smaller(encoded, width=STORED_WIDTH):
    """Return a PNG picture (base64) in few colours and no wider than that, or itself where it is smaller."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as stored:
        picture = Image.new("RGBA", stored.size, "white")
        picture.alpha_composite(stored.convert("RGBA"))
    if picture.width > width:
        height = round(picture.height * width / picture.width)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    # By the widest spread of colours: the most frequent ones alone would be shades of a grid's grey.
    few = picture.convert("RGB").quantize(
        STORED_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    few.save(content, "PNG", optimize=True)
    return min(base64.b64encode(content.getvalue()).decode(), encoded, key=len)


def store(path, home):
    """Run a notebook and keep what it showed in its own file."""
    import nbformat

    notebook = executed(path, home)
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":  # Keras leaves an empty frame where a summary went to a file
            cell.outputs = [
                output for output in cell.outputs if output.get("data", {}).get("text/plain") != ""
            ]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                shown = output.metadata.get("image/png", {}).get("width", STORED_WIDTH)
                output.data["image/png"] = smaller(output.data["image/png"], shown)
    notebook.metadata = METADATA
    nbformat.write(notebook, path)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_from_top_to_bottom(path, tmp_path, monkeypatch):
    for name, value in make_home(tmp_path).items():
        monkeypatch.setenv(name, value)
    executed(path, tmp_path, SMALLER[path.name[:2]])


def test_stored_pictures_are_small_and_keep_their_colours():
    picture = Image.radial_gradient("L").resize((2000, 1000)).convert("RGBA")
    picture.paste((0, 114, 178, 255), (0, 0, 1000, 1000))
    picture.paste((0, 0, 0, 0), (0, 900, 2000, 1000))  # transparent: white on the web
    picture.paste((240, 228, 66, 255), (1500, 500, 1520, 520))  # rare, as the star in the curves is
    content = io.BytesIO()
    picture.save(content, "PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    found = smaller(encoded)
    assert len(found) < len(encoded)
    with Image.open(io.BytesIO(base64.b64decode(found))) as stored:
        assert stored.size == (1000, 500)
        pixels = stored.convert("RGB")
    expected = ((100, 100, (0, 114, 178)), (100, 480, (255, 255, 255)), (755, 255, (240, 228, 66)))
    for x, y, colour in expected:
        assert max(abs(a - b) for a, b in zip(pixels.getpixel((x, y)), colour, strict=True)) <= 8
    with Image.open(io.BytesIO(base64.b64decode(smaller(encoded, 500)))) as stored:
        assert stored.size == (500, 250)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(make_home(Path(folder)))
        if (ROOT / "data" / "flowers").is_dir():  # photographs, where they are at hand
            (Path(folder) / "data").mkdir()
            (Path(folder) / "data" / "flowers").symlink_to((ROOT / "data" / "flowers").resolve())
        for chosen in NOTEBOOKS:
            if not sys.argv[1:] or chosen.name.startswith(tuple(sys.argv[1:])):
                started = time.monotonic()
                store(chosen, Path(folder))
                seconds, size = time.monotonic() - started, chosen.stat().st_size
                print(f"{chosen.name}: {seconds:.0f} s, {size / 1000:.0f} kB", flush=True)
