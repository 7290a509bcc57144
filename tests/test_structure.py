"""The shape of the code itself: who may import whom, how long a file may be."""

import ast
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("app", "models")
    for path in sorted((ROOT / package).rglob("*.py"))
}
GROUND = {
    "app.errors",
    "app.paths",
    "app.wording",
    "app.files",
    "app.machine",
    "app.backend",
    "app.classifier_files",
}
RUNS = {"app.records", "app.reading", "app.runs", "app.preflight"}
# What each part may import of the project, besides itself; the first name that fits a module counts.
MAY_IMPORT = {
    "models": set(),
    "app.errors": set(),
    "app.paths": {"app.errors"},
    "app.process": {"app.errors"},
    "app.wording": set(),
    "app.files": {"app.errors", "app.paths"},
    "app.machine": {"app.errors", "app.paths", "app.records", "app.wording"},
    "app.backend": {"app.machine"},
    "app.classifier_files": {"app.errors", "app.paths", "models"},
    # The generator looks at the models, the datasets and an optimizer; nothing reads it.
    "app.config.catalogue": GROUND | {"app.config", "app.data", "app.training.optimizers.muon", "models"},
    "app.config": GROUND,
    "app.records": {"app.wording"},
    "app.reading": GROUND | {"app.config", "app.records"},
    "app.runs": GROUND | {"app.config", "app.records", "app.reading"},
    "app.data": GROUND | {"app.config"},
    "app.preflight": GROUND | RUNS | {"app.config", "app.data"},
    "app.drawing": GROUND | RUNS | {"app.config", "models"},
    "app.evaluation": GROUND | RUNS | {"app.config", "app.data", "app.drawing", "models"},
    "app.reports": GROUND | RUNS | {"app.config", "app.data", "app.drawing", "app.evaluation", "models"},
    "app.distributed": GROUND | RUNS | {"app.config", "app.data", "models"},
    "app.training": GROUND
    | RUNS
    | {
        "app.config",
        "app.data",
        "app.drawing",
        "app.evaluation",
        "app.reports",
        "app.distributed",
        "app.process",
        "models",
    },
    "app": {"app", "models"},
}
TEXTS = {"", ".ipynb", ".json", ".md", ".py", ".toml", ".txt", ".yaml"}  # suffixes of files
MAX_LINES = 260
MAX_FILES = 16  # of code in a folder
README, RESULTS = ROOT / "README.md", ROOT / "experiments" / "README.md"
MAX_README_LINES = 150
PAGES = [
    README,
    *(
        page
        for folder in ("app", "experiments", "models", "notebooks", "tests")
        for pattern in ("*.md", "*.ipynb")
        for page in sorted((ROOT / folder).rglob(pattern))
        if ".ipynb_checkpoints" not in page.parts  # Jupyter's copies
    ),
]


def imported(path, *, module_level_only=False):
    """Names of the modules that a file imports; `from package import module` gives both."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = _run_at_import(tree.body) if module_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _run_at_import(statements):
    """Every node that runs when the module is imported: no function body, no TYPE_CHECKING block."""
    for node in statements:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _run_at_import(ast.iter_child_nodes(node))


def ours(names):
    """Keep the project's own modules."""
    return {name for name in names if name in SOURCES}


def part_of(module):
    return next(part for part in MAY_IMPORT if module == part or module.startswith(f"{part}."))


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_one_way(module):
    part = part_of(module)
    allowed = MAY_IMPORT[part] | {part}
    for name in ours(imported(SOURCES[module])):
        assert name in allowed or part_of(name) in allowed or part == "app", (
            f"{module} imports {name}; {part} may import {sorted(allowed)}"
        )


def test_no_import_circles():
    graph = {
        module: ours(imported(path, module_level_only=True)) - {module} for module, path in SOURCES.items()
    }
    done, trail = set(), []

    def visit(module):
        assert module not in trail, " imports ".join([*trail[trail.index(module) :], module])
        if module not in done:
            trail.append(module)
            for name in sorted(graph[module]):
                visit(name)
            done.add(trail.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize("module", SOURCES)
def test_files_fit_one_sitting(module):
    num_lines = len(SOURCES[module].read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES, f"{module}: {num_lines} lines; would a reader rather find two rooms?"


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in SOURCES.values()} - {ROOT / "models" / "networks"}),  # one file a network
    ids=lambda path: path.name,
)
def test_folders_stay_small(folder):
    num_files = len(list(folder.glob("*.py")))
    assert num_files <= MAX_FILES, f"{folder.name}: {num_files} files; is there a room of its own among them?"


def test_no_machine_paths():
    machine_path = re.compile(r"(?<![\w.])/(?:work|farm|root|tmp|home|Users)/[A-Za-z]")
    if not shutil.which("git"):
        pytest.skip("no git here")
    listing = subprocess.run(
        ["git", "ls-files"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listing.stdout.splitlines():
        path = ROOT / name
        if not path.is_file() or path.suffix not in TEXTS:  # and no photographs of a user's
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if machine_path.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    assert not found, "\n".join(found)


def _anchors(page):
    """What may follow # in a link to a page: its headings, in lower case and with hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not re.match(r"[a-z]+:", link):
            assert target.exists(), f"{link} does not exist"
            assert not anchor or anchor in _anchors(target), f"{link}: the page has no such heading"


def test_readme_stays_short():
    num_lines = len(README.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_README_LINES, "does it belong into the README of a folder?"


def test_results_in_the_readme_are_rows_of_the_table():
    def rows(page):
        lines = re.findall(r"^\| `\w+` \|.*(?<=\|)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {name: set(others) for name, *others in cells}

    copied, table = rows(README), rows(RESULTS)
    assert copied
    for name, cells in copied.items():
        assert cells <= table[name], f"{name}: copy the row of experiments/README.md anew"


def test_tests_that_the_pages_name_exist():
    names = set(re.findall(r"\btest_\w+\.py", (ROOT / "tests" / "README.md").read_text(encoding="utf-8")))
    assert names and names <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_define_nothing_and_carry_small_outputs(path):
    assert path.stat().st_size < 400_000, f"{path.name} is too large to be read on the web"
    cells = [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    renew = f"python tests/test_notebooks.py {path.stem} writes them anew"
    counts = [cell["execution_count"] for cell in cells]
    assert counts == list(range(1, len(cells) + 1)), f"{path.name}: outputs of one run, please: {renew}"
    for cell in cells:
        defined = [
            node
            for node in ast.walk(ast.parse("".join(cell["source"])))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)
        ]
        assert not defined, f"{path.name} defines something; it belongs in app or models"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs), f"{path.name}: {renew}"
    for output in outputs:
        assert output["output_type"] != "error" and output.get("name") != "stderr", f"{path.name}: {renew}"
        words = "".join(output.get("text", [])) + "".join(output.get("data", {}).get("text/plain", []))
        rooted = re.search(r"(?<![\w.:/])/[A-Za-z][\w.-]*/\S*", words)
        assert not rooted, f"{path.name} shows a path of the machine it ran on: {rooted[0]}"
        assert "WARNING" not in words and " at 0x" not in words, f"{path.name}: {words[:200]}"
