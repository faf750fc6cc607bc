"""Equality of results: cases that other evaluators get wrong, and algebraic properties."""

import itertools
import math
import random
import re
from decimal import Decimal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sqlquarry.errors import ConfigError
from sqlquarry.results.cells import STRICT, ComparisonOptions
from sqlquarry.results.comparison import results_equal, rows_match

# Public evaluators get 1 to 6 of these wrong.
CASES = [
    ("same rows, other order", True, [("a", 1), ("b", 2)], [("b", 2), ("a", 1)], False),
    ("values attached to the wrong row", False, [("alice", 100), ("bob", 200)], [("alice", 200), ("bob", 100)], False),
    ("from and to swapped in one row", False, [(1, 2), (3, 4)], [(2, 1), (3, 4)], False),
    ("missing DISTINCT", False, [("a",), ("b",)], [("a",), ("a",), ("b",)], False),
    ("other duplicate counts", False, [("a",), ("a",), ("b",)], [("a",), ("b",), ("b",)], False),
    ("ORDER BY asked, wrong order", False, [("a", 1), ("b", 2)], [("b", 2), ("a", 1)], True),
    ("4 and 4.0", True, [(4,)], [(4.0,)], False),
    ("float sum noise", True, [(0.3,)], [(0.1 + 0.2,)], False),
    ("NULL and 'None'", False, [(None,)], [("None",)], False),
    ("number and text", False, [(1,)], [("1",)], False),
    ("text in another case", False, [("a",)], [("A",)], False),
    ("text with a space", False, [("a",)], [("a ",)], False),
    ("columns in other order, each row its own", False, [(1, 2), (1, 3)], [(2, 1), (1, 3)], False),
    ("one column twice", False, [(1, 1), (2, 2)], [(1, 2), (2, 1)], False),
    ("columns in other order", True, [("x", 1), ("y", 2)], [(1, "x"), (2, "y")], False),
    ("both empty", True, [], [], False),
    ("one empty", False, [], [(1,)], False),
    ("empty text and NULL", False, [("",)], [(None,)], False),
    ("text and bytes", False, [("a",)], [(b"a",)], False),
    ("bytes", True, [(b"\x00\xff",)], [(bytearray(b"\x00\xff"),)], False),
    ("True and 1", True, [(True, None)], [(1, None)], False),
    ("Decimal and float", True, [(Decimal("1.5"), Decimal(2))], [(1.5, 2)], False),
    ("long keys as Decimal", False, [(Decimal(2**60),)], [(Decimal(2**60 + 1),)], False),
    ("long keys as int", False, [(2**62,)], [(2**62 + 1,)], False),
    ("NaN", True, [(math.nan,)], [(float("nan"),)], False),
    ("NaN and NULL", False, [(math.nan,)], [(None,)], False),
    ("infinities", False, [(math.inf,)], [(-math.inf,)], False),
    ("infinity and a number", False, [(math.inf,)], [(1e308,)], False),
    ("another number of columns", False, [(1, 1)], [(1,)], False),
    ("keys a millionth apart", False, [(123456789,)], [(123456790,)], False),
    ("keys as REAL", False, [(123456789.0,)], [(123456790.0,)], False),
    ("noise of a sum", True, [(1234567.8,)], [(1234567.8000001,)], False),
    ("noise near 0", True, [(0.0,)], [(9e-13,)], False),
    ("a small value and 0", False, [(0.0,)], [(4e-7,)], False),
    ("small values", False, [(3e-8,)], [(6e-8,)], False),
    ("beyond the tolerance", False, [(0.5,)], [(0.500000002,)], False),
    ("days of the Julian calendar", False, [(2460310.5,)], [(2460312.5,)], False),
    ("seconds since 1970", False, [(1704067200.5,)], [(1704067900.5,)], False),
    ("degrees a few metres apart", False, [(52.5163,)], [(52.51633,)], False),
    ("sums that differ by 2", False, [(2718281.5,)], [(2718283.5,)], False),
    ("amounts as DECIMAL", False, [(Decimal("7654321.09"),)], [(Decimal("7654322.19"),)], False),
    ("a cent of a hundred billion", False, [(Decimal("123456789012.34"),)], [(Decimal("123456789012.35"),)], False),
    ("DECIMAL of another scale", True, [(Decimal("2.50"),)], [(Decimal("2.5"),)], False),
    ("whole DECIMALs", False, [(Decimal("5e16"),)], [(Decimal("5e16") + 700,)], False),
    ("enormous DECIMALs", False, [(Decimal("1e450"),)], [(Decimal("3e450"),)], False),
    (
        "a quotient with more digits",
        True,
        [(Decimal("0.6666666666666667"),)],
        [(Decimal("0.66666666666666666667"),)],
        False,
    ),
    ("DECIMAL and a float of it", True, [(Decimal("1.333333333333333333"),)], [(4 / 3,)], False),
    ("a DECIMAL NaN", True, [(Decimal("NaN"),)], [(math.nan,)], False),
    ("a long key and the float next to it", True, [(2**60 + 1,)], [(float(2**60),)], False),
    ("a long key and another float", False, [(2**60 + 1,)], [(float(2**60 + 4096),)], False),
    (
        "either side of a rounding border",
        True,
        [(0.5 - 1e-10,), (0.5 + 1e-10,)],
        [(0.5 + 1e-10,), (0.5 - 1e-10,)],
        False,
    ),
    ("whole but for noise", True, [(3.0,), (14,)], [(3.0000000000000004,), (13.999999999999998,)], False),
]
# The four properties that make the comparison fair are checked on 10,000 examples in total.
many = settings(max_examples=2_500)
seeds = st.integers(0, 2**32)
NEAR = [0.5, 0.5 + 4e-10, 0.5 + 8e-10]  # neighbors are within the tolerance of each other, but the ends are not
CELLS = [None, -1, 0, 1, 2, "", "a", "b", "1", "None", *NEAR, 1.0, math.nan, b"", b"a"]
NUMBERS = [1.0, 1 + 9e-10, 1 + 1.8e-9]

cells = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.sampled_from(["", "a", "b", "1", "None"]),
    st.sampled_from([*NEAR, 1.0, math.nan]),
    st.sampled_from([b"", b"a"]),
)


@st.composite
def tables(draw, min_rows=0, max_rows=6, min_columns=1, max_columns=4):
    width = draw(st.integers(min_columns, max_columns))
    row = st.tuples(*[cells] * width)
    return draw(st.lists(row, min_size=min_rows, max_size=max_rows))


def random_table(choose):
    """Return a random table like those of `tables`, in a tenth of the time."""
    pool = choose.sample(CELLS, choose.randint(1, 6))
    width = choose.randint(1, 4)
    return [tuple(choose.choices(pool, k=width)) for _ in range(choose.randint(1, 6))]


def permuted(rows, order):
    return [tuple(row[i] for i in order) for row in rows]


@pytest.mark.parametrize(("name", "want", "gold", "predicted", "ordered"), CASES, ids=[case[0] for case in CASES])
def test_hand_made_case(name, want, gold, predicted, ordered):
    assert results_equal(gold, predicted, ordered=ordered) is want, name
    assert results_equal(predicted, gold, ordered=ordered) is want, f"{name}, swapped"


@given(tables(), st.booleans())
def test_reflexive(rows, ordered):
    assert results_equal(rows, list(rows), ordered=ordered)


@given(st.data(), st.booleans())
def test_symmetric(data, ordered):
    gold = data.draw(tables(max_columns=2))
    width = len(gold[0]) if gold else 1
    predicted = data.draw(tables(min_columns=width, max_columns=width))
    assert results_equal(gold, predicted, ordered=ordered) is results_equal(predicted, gold, ordered=ordered)


@many
@given(seeds)
def test_invariant_under_shuffled_rows_and_permuted_columns(seed):
    choose = random.Random(seed)
    rows = random_table(choose)
    shuffled = choose.sample(rows, len(rows))
    order = choose.sample(range(len(rows[0])), len(rows[0])) if rows else []
    assert results_equal(rows, permuted(shuffled, order), ordered=False)
    assert results_equal(rows, permuted(rows, order), ordered=True)


@many
@given(seeds)
def test_columns_shuffled_each_on_its_own_are_noticed(seed):
    choose = random.Random(seed)
    count, width = choose.randint(2, 6), choose.randint(2, 4)
    # Every cell is unique, so only the combinations of cells distinguish the rows.
    rows = [tuple(f"{i}.{j}" for j in range(width)) for i in range(count)]
    columns = [choose.sample(column, count) for column in zip(*rows, strict=True)]
    mixed = list(zip(*columns, strict=True))
    assume(sorted(mixed) != sorted(rows))
    assert not results_equal(rows, mixed, ordered=False)


@given(tables(min_rows=1), st.data())
def test_a_changed_cell_is_noticed(rows, data):
    i = data.draw(st.integers(0, len(rows) - 1))
    j = data.draw(st.integers(0, len(rows[0]) - 1))
    changed = [list(row) for row in rows]
    changed[i][j] = "changed"
    assert not results_equal(rows, changed, ordered=False)
    assert not results_equal(rows, changed, ordered=True)


@many
@given(seeds)
def test_a_dropped_or_exchanged_duplicate_is_noticed(seed):
    choose = random.Random(seed)
    rows = random_table(choose)
    extra = choose.choice(rows)
    assert not results_equal([*rows, extra], rows, ordered=False)
    other = tuple("other" for _ in extra)
    assert not results_equal([*rows, extra, other], [*rows, other, other], ordered=False)


@many
@given(seeds)
def test_a_cell_of_another_type_is_noticed(seed):
    choose = random.Random(seed)
    rows = random_table(choose)
    i, j = choose.randrange(len(rows)), choose.randrange(len(rows[0]))
    other = [list(row) for row in rows]
    other[i][j] = (str if not isinstance(rows[i][j], str) else str.encode)(rows[i][j])
    assert not results_equal(rows, other, ordered=choose.random() < 0.5)


@given(st.lists(st.integers(), min_size=2, max_size=6, unique=True), st.data())
def test_order_matters_only_where_asked(values, data):
    i, j = data.draw(st.lists(st.integers(0, len(values) - 1), min_size=2, max_size=2, unique=True))
    swapped = list(values)
    swapped[i], swapped[j] = swapped[j], swapped[i]
    gold, predicted = [(v,) for v in values], [(v,) for v in swapped]
    assert results_equal(gold, predicted, ordered=False)
    assert not results_equal(gold, predicted, ordered=True)


def test_rows_with_the_same_place_may_be_exchanged():
    gold = [("a", 3), ("b", 2), ("c", 2), ("d", 1)]
    assert rows_match(gold, [gold[0], gold[2], gold[1], gold[3]], places=[0, 1, 1, 2])
    assert not rows_match(gold, [gold[1], gold[0], gold[2], gold[3]], places=[0, 1, 1, 2])


def test_rows_within_tolerance_are_paired_not_sorted():
    # Sorting by the first column would pair ("x", 1.0) with ("y", …).
    gold = [(1.0, "x"), (1 + 1e-10, "y")]
    predicted = [(1.0, "y"), (1 + 1e-10, "x")]
    assert results_equal(gold, predicted, ordered=False)


def same_cell(a, b):
    if isinstance(a, int | float) and isinstance(b, int | float):
        whole = float(a).is_integer() and float(b).is_integer()
        both_nan = math.isnan(a) and math.isnan(b)
        return a == b if whole else both_nan or math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    return type(a) is type(b) and a == b


def by_trying_everything(gold, predicted, *, ordered, comparison=STRICT):
    """Apply the definition: some choice of the columns and some pairing of the rows make all cells equal."""
    width = len(gold[0])
    choices = itertools.permutations(range(len(predicted[0])), width)
    if not comparison.extra_columns and len(predicted[0]) != width:
        return False
    return any(
        all(
            same_cell(a, b)
            for row, other in zip(gold, permuted(rows, columns), strict=True)
            for a, b in zip(row, other, strict=True)
        )
        for columns in choices
        if comparison.permute_columns or list(columns) == sorted(columns)
        for rows in ([predicted] if ordered else itertools.permutations(predicted))
    )


@given(st.lists(st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS)), min_size=1, max_size=5), st.data())
def test_tolerance_agrees_with_trying_everything(gold, data):
    row = st.tuples(st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
    predicted = data.draw(st.lists(row, min_size=len(gold), max_size=len(gold)))
    want = by_trying_everything(gold, predicted, ordered=False)
    assert results_equal(gold, predicted, ordered=False) is want


@settings(max_examples=200)
@given(tables(min_rows=1, max_rows=4, max_columns=3), st.booleans(), st.data())
def test_any_two_tables_agree_with_trying_everything(gold, ordered, data):
    width, count = len(gold[0]), len(gold)
    # Half of them nearly equal: shuffled, and perhaps one cell changed.
    if data.draw(st.booleans()):
        rows = gold if ordered else data.draw(st.permutations(gold))
        predicted = [list(row) for row in permuted(rows, data.draw(st.permutations(range(width))))]
        if data.draw(st.booleans()):
            predicted[data.draw(st.integers(0, count - 1))][data.draw(st.integers(0, width - 1))] = data.draw(cells)
    else:
        predicted = data.draw(tables(min_rows=count, max_rows=count, min_columns=width, max_columns=width))
    want = by_trying_everything(gold, predicted, ordered=ordered)
    assert results_equal(gold, predicted, ordered=ordered) is want


@settings(max_examples=300)
@given(tables(min_rows=1, max_rows=3, max_columns=2), st.booleans(), st.booleans(), st.booleans(), st.data())
def test_every_option_of_columns_agrees_with_trying_everything(gold, permute, extra, ordered, data):
    comparison = ComparisonOptions(permute_columns=permute, extra_columns=extra)
    width, count = len(gold[0]), len(gold)
    more = data.draw(tables(min_rows=count, max_rows=count, max_columns=2))
    rows = data.draw(st.permutations(range(count)))
    wide = [gold[i] + more[i] for i in rows]
    predicted = permuted(
        wide, data.draw(st.permutations(range(len(wide[0]))))[: data.draw(st.integers(1, len(wide[0])))]
    )
    want = by_trying_everything(gold, predicted, ordered=ordered, comparison=comparison) if predicted[0] else False
    assert results_equal(gold, predicted, ordered=ordered, comparison=comparison) is want, (width, comparison)


@given(tables(min_rows=1), tables(min_rows=1))
def test_what_is_equal_strictly_is_equal_under_every_option(gold, predicted):
    loose = ComparisonOptions(
        extra_columns=True, relative_tolerance=1e-3, absolute_tolerance=1e-3, ignore_case=True, ignore_whitespace=True
    )
    for other in (predicted, gold[::-1]):
        if results_equal(gold, other, ordered=False):
            assert results_equal(gold, other, ordered=False, comparison=loose)


OPTIONS = [
    ({"permute_columns": False}, [(1, "a")], [("a", 1)], False),
    ({"permute_columns": False}, [(1, "a"), (2, "b")], [(2, "b"), (1, "a")], True),
    ({"permute_columns": False}, [(1, 1)], [(1, 1)], True),
    ({"extra_columns": True}, [(1,), (2,)], [("x", 2), ("y", 1)], True),
    ({"extra_columns": True}, [(1,), (2,)], [("x", 2), ("y", 2)], False),
    ({"extra_columns": True}, [(1, 2)], [(1,)], False),
    ({"extra_columns": True}, [(1,)], [(1, 2), (1, 2)], False),
    ({"extra_columns": True}, [(1, 10), (2, 20)], [(1, 5, 20), (2, 5, 10)], False),  # to the wrong row
    ({"extra_columns": True, "permute_columns": False}, [(1, 2)], [(1, 9, 2)], True),
    ({"extra_columns": True, "permute_columns": False}, [(1, 2)], [(2, 9, 1)], False),
    ({"absolute_tolerance": 0.01}, [(1.5,)], [(1.509,)], True),
    ({"absolute_tolerance": 0.01}, [(1.5,)], [(1.511,)], False),
    ({"absolute_tolerance": 5}, [(1,)], [(2,)], False),  # integers are counts and keys
    ({"decimals": 2}, [(3.14,)], [(3.14159,)], True),
    ({"decimals": 2}, [(3.15,)], [(3.14159,)], False),
    ({"decimals": 1}, [(0.3,), (2,)], [(0.25,), (2.04,)], True),
    ({"decimals": 0}, [(5,)], [(6,)], False),  # both are integers
    ({"decimals": 2}, [(Decimal("1.24"),)], [(Decimal("1.2351"),)], True),
    ({"decimals": 2}, [(Decimal("1.24"),)], [(Decimal("1.2349"),)], False),
    ({"relative_tolerance": 0.1}, [(100.5,)], [(110.5,)], True),
    ({"relative_tolerance": 0.1}, [(100.5,)], [(112.5,)], False),
    ({"relative_tolerance": 0.49}, [(0.51, "a"), (9.5, "b")], [(9.5, "b"), (0.9, "a")], True),
    ({"relative_tolerance": 0, "absolute_tolerance": 0}, [(0.3,)], [(0.1 + 0.2,)], False),
    ({"relative_tolerance": 0, "absolute_tolerance": 0}, [(0.3,)], [(0.3,)], True),
    ({"ignore_case": True}, [("Straße",)], [("STRASSE",)], True),
    ({"ignore_case": True}, [("a ",)], [("A",)], False),
    ({"ignore_whitespace": True}, [("a  b",)], [(" a b\n",)], True),
    ({"ignore_whitespace": True}, [("a b",)], [("ab",)], False),
    ({"ignore_whitespace": True, "ignore_case": True}, [("a b",)], [(" A B",)], True),
    ({"ignore_case": True}, [("1",)], [(1,)], False),
]


@pytest.mark.parametrize(("options", "gold", "predicted", "want"), OPTIONS)
def test_options(options, gold, predicted, want):
    assert results_equal(gold, predicted, ordered=False, comparison=ComparisonOptions(**options)) is want


def test_bad_tolerances_are_refused_all_at_once():
    with pytest.raises(ConfigError) as caught:
        ComparisonOptions(relative_tolerance=0.5, absolute_tolerance=math.nan, decimals=-1)
    for option, value in (("relative_tolerance", "0.5"), ("absolute_tolerance", "nan"), ("decimals", "-1")):
        assert re.search(rf"{option}\W.*{value}", str(caught.value))


NAMES = [
    # Names of gold and prediction, gold, predicted, whether they are equal.
    (("wins", "losses"), ("wins", "losses"), [(3, 5)], [(5, 3)], False),
    (("wins", "losses"), ("losses", "wins"), [(3, 5)], [(5, 3)], True),
    (("wins", "losses"), ("LOSSES", "Wins"), [(3, 5)], [(5, 3)], True),
    (("wins", "losses"), ("won", "lost"), [(3, 5)], [(5, 3)], True),
    (("name", "name"), ("name", "name"), [("a", "b")], [("b", "a")], True),
    (("a", "b", "c"), ("c", "a", "b"), [(1, 2, 3), (4, 5, 6)], [(6, 4, 5), (3, 1, 2)], True),
    (("a", "b", "c"), ("c", "a", "b"), [(1, 2, 3), (4, 5, 6)], [(3, 2, 1), (6, 5, 4)], False),
]


@pytest.mark.parametrize(("gold_names", "predicted_names", "gold", "predicted", "want"), NAMES)
def test_columns_of_the_same_names_belong_together(gold_names, predicted_names, gold, predicted, want):
    names = (gold_names, predicted_names)
    assert rows_match(gold, predicted, [0] * len(gold), names=names) is want
    if gold_names == predicted_names:
        kept = ComparisonOptions(permute_columns=False)
        assert rows_match(gold, predicted, [0] * len(gold), kept, names) is (gold == predicted)


exact = st.one_of(
    st.integers(-(10**20), 10**20), st.decimals(-(10**9), 10**9, places=3), st.decimals(-(10**15), 10**15, places=2)
)


@given(exact, exact)
def test_exact_numbers_are_equal_only_if_they_are(a, b):
    assert results_equal([(a,)], [(b,)], ordered=False) is (Decimal(a) == Decimal(b))


@given(st.floats(allow_nan=False, allow_infinity=False, width=64), st.floats(-5e-9, 5e-9))
def test_floats_are_equal_up_to_a_billionth(number, change):
    other = number * (1 + change)
    want = number == other or math.isclose(number, other, rel_tol=1e-9, abs_tol=1e-12)
    if not (number.is_integer() and other.is_integer()):
        assert results_equal([(number,)], [(other,)], ordered=False) is want
        assert results_equal([(other, "x"), (None, "y")], [(None, "y"), (number, "x")], ordered=False) is want


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=40), seeds)
def test_sums_in_another_order_are_equal(numbers, seed):
    shuffled = random.Random(seed).sample(numbers, len(numbers))
    gold, predicted = sum(numbers), 0.0
    for number in shuffled:
        predicted += number
    assert results_equal([(gold, 1)], [(1, predicted)], ordered=False)
