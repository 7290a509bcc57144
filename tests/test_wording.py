"""Tables in plain text, and names in messages."""

from app.wording import aligned, first_difference, unknown_name


def test_tables_are_aligned_and_leave_no_blanks_behind():
    rows = [("name", "images", ""), ("a", "1,234,567", "x"), ("longer", "5", "")]
    assert aligned(rows, right=[1]) == ["name       images", "a       1,234,567  x", "longer          5"]
    assert aligned([("a", "b", "c")], right=[1], widths=(3, 3, 0)) == ["a      b  c"]
    assert aligned([("\u732b\u732b", "1"), ("e\u0301t", "2")], right=[1]) == [
        "\u732b\u732b  1",
        "e\u0301t    2",
    ]


def test_names_that_look_the_same_are_told_apart():
    one, other = "caf\u00e9", "cafe\u0301"
    assert unknown_name("class", other, [one, "dog"]) == (
        r"unknown class 'cafe\u0301'; 'caf\xe9' looks the same, in another Unicode form"
    )
    assert first_difference(["dog", one], ["dog", other]) == r"class 1 is 'caf\xe9' against 'cafe\u0301'"
    assert first_difference([one], ["dog"]) == "class 0 is 'caf\u00e9' against 'dog'"
