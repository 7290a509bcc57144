"""Tables in plain text."""

from app.wording import aligned


def test_tables_are_aligned_and_leave_no_blanks_behind():
    rows = [("name", "images", ""), ("a", "1,234,567", "x"), ("longer", "5", "")]
    assert aligned(rows, right=[1]) == ["name       images", "a       1,234,567  x", "longer          5"]
    assert aligned([("a", "b", "c")], right=[1], widths=(3, 3, 0)) == ["a      b  c"]
