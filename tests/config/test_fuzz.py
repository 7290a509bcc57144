"""Every shipped experiment broken in every way: it loads as a whole experiment, or the message says where."""

# ruff: noqa: E501 - tables of what a file may be broken with

import collections
import copy
import datetime
import math
import os
import re
import signal
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from app.config import dump_experiment, load_with_sweep
from app.errors import UserError
from tests.config.conftest import BOMB
from tests.conftest import SHIPPED, shipped_experiments

FILES = {f"{name}.yaml": (SHIPPED / f"{name}.yaml").read_text() for name in shipped_experiments()}
HANGS_AFTER_SECONDS = 60
LINE = re.compile(r"(experiments/[a-z0-9_]+\.yaml)(?::([0-9]+):([0-9]+))?: (.+)")
WITHOUT_PLACE = re.compile(
    r"empty|nested deeper than .*|not UTF-8 text .*|[0-9]+ bytes; .*|and [0-9]+ more mistakes"
)
MAX_LINE = 1_500  # the longest lists every optimizer or layer
CHAIN = ["first", *[f"link{number}" for number in range(30)]]
SNIPPETS = [
    *("\0", "\a", "\x1b[2J", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\u202e", "\t", "\r", "\n\n", " "),
    *("'", '"', "|", ">", "%", "@", "`", "&", "*", "!", "?", ":", "-", "[", "]", "{", "}", ",", "#", "~", "="),
    *("é", "e\u0301", "數", "😀", "&a ", "*a", "*seed", "&a [*a]", "<<: *a\n", "<<: 3\n", "<<: [{a: 1}, 2]\n"),
    *("---\n", "...\n", "%YAML 9.9\n---\n", f"%YAML 1.{'9' * 5000}\n---\n", "%TAG ! !x\n---\n", "? [a]\n: b\n"),
    *('"\\Uffffffff"', '"\\ud800"', '"a\\nb": 1\n', '"a\\0b"', "!a%0Ab ", "!!int x", "!!bool yes", "!<x> "),
    *("!!python/object/apply:os.mkdir [made]", "!!python/name:os.system ", "!!python/module:antigravity "),
    *("!!binary aGk=", "!!set {a}", "!!timestamp 2026-01-31", "!!omap [a: 1]", "!!null ", "!!str ", "!!float "),
    *("[" * 30, "[" * 5000, "{a: " * 5000, "- " * 5000, "]" * 30, "9" * 5000, "1e999", "-.inf", ".nan", "0x1F"),
    *("extends: broken.yaml\n", "extends: ../outside.yaml\n", "extends: /etc/passwd\n", "extends: first.yaml\n"),
    *("extends: circle.yaml\n", "extends: quickstart.yaml\n", "extends: nul\\0.yaml\n", "extends:\n", "extends: .\n"),
    *("seed: 1\nseed: 2\n", "a: 1\n" * 200, "x" * 5000, "? " + "k" * 5000 + "\n: 1\n", BOMB),
]  # fmt: skip
AWKWARD = [
    *(None, True, False, -1, 0, 1, 2, 2**63 - 1, -(2**63), 10**400, 0.0, -1e300, 5e-324, math.inf, math.nan),
    *("", " ", "test", "no", "1e-3", "a" * 5000, "a\nb", "\0", "\u2028", "\ud800", "é", "e\u0301", "../x", "~x"),
    *([], {}, [[]], [None], {"": 1}, {"name": "sgd"}, {"schedule": [1]}, {"a\nb": 1}, {1: 2}, {None: 3}, (1, 2)),
    *(b"bytes", {"a set"}, datetime.date(2026, 1, 31), 1j, ["random_flip"], {"schedule": "step", "peak": 1}),
]  # fmt: skip
TEXTS = st.text("aZ09_-.:,?!#&*|>'\"%@`~=<[]{} \n\t\0\x7f\x85\xa0é\u2028\ud800\ufeff数😀", max_size=20)
VALUES = st.sampled_from(AWKWARD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # to make the cases with, quickly where possible


def entries(tree):
    """Every (container, key) below a tree."""
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    for key, value in items:
        yield tree, key
        if isinstance(value, dict | list):
            yield from entries(value)


def mutate_tree(draw, tree):
    """Change one entry of the tree in place; return what was done."""
    container, key = draw(st.sampled_from(list(entries(tree)) or [(tree, "seed")]))
    value = container.get(key) if isinstance(container, dict) else container[key]
    kinds = ["drop", "retype", "nest"] + (["misspell", "move"] if isinstance(container, dict) else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "retype":
        container[key] = copy.deepcopy(draw(VALUES))
    elif kind == "nest":
        for _ in range(draw(st.sampled_from([1, 2, 5, 30, 300]))):
            value = {"name": value} if draw(st.booleans()) else [value]
        container[key] = value
    elif kind == "move":
        other, _ = draw(st.sampled_from(list(entries(tree)) or [(tree, "seed")]))
        if isinstance(other, dict):
            other[key] = copy.deepcopy(value)
    else:
        if isinstance(container, dict):
            container.pop(key, None)
        else:
            del container[key]
        if kind == "misspell":
            word = str(key)
            letters = draw(st.permutations(word)) if len(word) < 20 else word
            container[draw(st.sampled_from([word[1:], word + "s", word.upper(), "".join(letters)]))] = value
    return kind


def mutate_text(draw, text):
    """Return the text with one change, and what was done."""
    lines = text.splitlines(keepends=True) or [""]
    row = draw(st.integers(0, len(lines) - 1))
    kind = draw(
        st.sampled_from(["insert", "insert", "replace", "line", "delete", "swap", "repeat", "tab", "cut"])
    )
    snippet = draw(st.sampled_from(SNIPPETS) | TEXTS)
    if kind == "insert":
        column = draw(st.integers(0, len(lines[row])))
        lines[row] = lines[row][:column] + snippet + lines[row][column:]
    elif kind == "replace":  # the value of a key
        lines[row] = re.sub(r":.*", lambda match: f": {snippet}", lines[row], count=1)
    elif kind == "line":
        lines.insert(row, snippet if snippet.endswith("\n") else snippet + "\n")
    elif kind == "delete":
        del lines[row : row + draw(st.integers(1, 5))]
    elif kind == "swap":
        other = draw(st.integers(0, len(lines) - 1))
        lines[row], lines[other] = lines[other], lines[row]
    elif kind == "repeat":
        lines.insert(draw(st.integers(0, len(lines))), lines[row])
    elif kind == "tab":
        lines[row] = "\t" * draw(st.integers(1, 3)) + lines[row].lstrip(" ")
    else:
        lines[row:] = [lines[row][: draw(st.integers(0, len(lines[row])))]]
    return "".join(lines), kind


def mutate_bytes(draw, content):
    """Return the bytes with one change, and what was done."""
    kind = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32", "byte", "empty", "bom", "large", "huge"]))
    if kind == "byte":
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        content = content[:place] + bytes([draw(st.integers(0, 255))]) + content[place + 1 :]
    elif kind == "large":
        content += b"#" * 50_000
    elif kind == "huge":
        content += b"#" * 10_000_000
    elif kind == "bom":
        content = b"\xef\xbb\xbf" + content
    elif kind == "empty":
        content = draw(st.sampled_from([b"", b" ", b"\n", b"\t", b"#", b"---", b"\xff", b"\0", b"{}", b"[]"]))
    else:
        content = content.decode("utf-8", "replace").encode(kind)
    return content, kind


@st.composite
def broken_files(draw):
    """A shipped experiment after one to three changes: its name, what was done, and the bytes."""
    name = draw(st.sampled_from(sorted(FILES)))
    text, kinds = FILES[name], []
    changes = sorted(draw(st.lists(st.sampled_from(["1 tree", "2 text", "3 bytes"]), min_size=1, max_size=3)))
    if "1 tree" in changes:
        tree = yaml.load(text, LOADER)
        kinds += [mutate_tree(draw, tree) for _ in range(changes.count("1 tree"))]
        text = yaml.dump(tree, sort_keys=False, allow_unicode=draw(st.booleans()))
    for _ in range(changes.count("2 text")):
        text, kind = mutate_text(draw, text)
        kinds.append(kind)
    content = text.encode("utf-8", "surrogatepass")
    if "3 bytes" in changes:
        content, kind = mutate_bytes(draw, content)
        kinds.append(kind)
    return name, kinds, content


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project folder with the shipped experiments, and some that an `extends` may lead to."""
    home = tmp_path / "home"
    (home / "experiments").mkdir(parents=True)
    for name, text in FILES.items():
        (home / "experiments" / name).write_text(text)
    for name, parent in zip(CHAIN, [*CHAIN[1:], "quickstart"], strict=True):
        (home / "experiments" / f"{name}.yaml").write_text(f"extends: {parent}.yaml\n")
    (home / "experiments" / "circle.yaml").write_text("extends: broken.yaml\n")
    (tmp_path / "outside.yaml").write_text(FILES["quickstart.yaml"])
    monkeypatch.setenv("TRAINER_HOME", str(home))
    monkeypatch.setenv("HYPOTHESIS_STORAGE_DIRECTORY", str(tmp_path / "hypothesis"))
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def fail_if_it_hangs():
    """A function that starts the clock of one case anew; 0 stops it."""

    def fail(*_):
        pytest.fail(f"a case took more than {HANGS_AFTER_SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    yield signal.alarm
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check_message(message):
    """Each line is short and plain, and points into a file, or at a file of which no place can be told."""
    for line in message.split("\n"):
        match = LINE.fullmatch(line)
        assert match, line
        assert len(line) <= MAX_LINE and line.isprintable(), line
        path, row, column, text = match.groups()
        if row is None:
            assert WITHOUT_PLACE.fullmatch(text), line
            continue
        rows = re.split("[\n\x85\u2028\u2029]", Path(path).read_text(encoding="utf-8"))  # YAML's lines
        assert 1 <= int(row) <= len(rows) and 1 <= int(column) <= len(rows[int(row) - 1]) + 1, line


def load_or_explain(path, other_folder):
    """Load a broken file; return whether it was fit for use after all."""
    try:
        experiment = load_with_sweep(path.stem)
    except UserError as error:
        check_message(str(error))
        return "refused"
    again = other_folder / path.name
    again.write_text(dump_experiment(experiment), encoding="utf-8")
    assert load_with_sweep(again) == experiment
    return "valid"


@pytest.mark.parametrize(
    ("num_cases", "num_distinct", "num_files"),
    [(150, 100, 15), pytest.param(900, 650, len(FILES), marks=pytest.mark.slow)],
)
def test_a_broken_file_is_explained_line_by_line(
    num_cases, num_distinct, num_files, home, tmp_path, fail_if_it_hangs, record_property
):
    path, seen, counts = home / "experiments" / "broken.yaml", set(), collections.Counter()
    path.touch()
    before = {folder: sorted(os.listdir(folder)) for folder in (home, path.parent)}

    @settings(
        max_examples=num_cases,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(broken_files())
    def check(case):
        name, kinds, content = case
        path.write_bytes(content)
        fail_if_it_hangs(HANGS_AFTER_SECONDS)
        outcome = load_or_explain(path, tmp_path)
        fail_if_it_hangs(0)
        assert {folder: sorted(os.listdir(folder)) for folder in before} == before, "something was written"
        if hash(content) not in seen:
            seen.add(hash(content))
            counts.update({name, outcome, *kinds})

    check()
    print(f"{len(seen)} distinct cases: {dict(sorted(counts.items()))}")
    record_property("distinct_cases", len(seen))
    assert len(seen) >= num_distinct
    assert len(set(FILES) & set(counts)) >= num_files
    assert min(counts["valid"], counts["refused"]) > 0
