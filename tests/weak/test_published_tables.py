"""The thesis's tables as reference files: against each other, and against what its text says."""

import pytest

from conftest import ROOT
from modicum.results.reference import Reference

FOLDER = ROOT / "tune_configs" / "weak"
SETS = ("sms", "trec", "imdb", "yelp", "agnews", "census")
WEAK_BASELINES = ("majority_vote", "snorkel", "weasel", "denoise")


def cells_of(name):
    """(mean, sd) by set, method, way of strong labels, and fraction."""
    names = ("dataset", "method", "strong_labels", "strong_fraction")
    found = {}
    for cell in Reference.load(FOLDER / f"{name}.reference.yaml").cells:
        key = tuple(cell.where.get(n) for n in names)
        assert key not in found
        assert cell.n == 5
        found[key] = (cell.mean, cell.sd)
    return found


@pytest.fixture(scope="module")
def table_3_2():
    return cells_of("table_3_2")


@pytest.fixture(scope="module")
def table_a_1():
    return cells_of("table_a_1")


def test_tables_are_complete(table_3_2, table_a_1):
    """Six sets: seven methods at five fractions less labels only at 0%; five rows at four."""
    assert len(table_3_2) == 6 * (7 * 5 - 1)
    assert len(table_a_1) == 6 * 5 * 4
    assert {key[0] for key in table_3_2} == {key[0] for key in table_a_1} == set(SETS)
    assert not any(key[1] == "labels_only" and key[3] == 0 for key in table_3_2)


def test_rows_that_both_tables_have_are_equal(table_3_2, table_a_1):
    """MV-V, Snorkel-V and iWLD of table A.1 are rows of table 3.2, whose column of fractions is
    displaced in print: a block taken for another would show here.
    """
    shared = [key for key in table_a_1 if key[2] != "replace"]
    assert len(shared) == 6 * 3 * 4
    for dataset, method, way, fraction in shared:
        here = table_a_1[dataset, method, way, fraction]
        assert here == table_3_2[dataset, method, None, fraction], (dataset, method, fraction)


def test_table_3_2_is_what_the_text_says_of_it(table_3_2):
    """Either iWL or iWLD alone is best in 19 of 30 cells and best or second in 28 (section 3.4.2).

    At 1% they lead the weak-learning baselines by 2 to 5 points in all sets but one (SMS).
    WeaSEL sits at the majority class on Census, SMS and TREC.
    """
    best = among_two = 0
    for dataset in SETS:
        for fraction in (0.0, 0.01, 0.1, 0.5, 1.0):
            column = {
                k[1]: v[0] for k, v in table_3_2.items() if (k[0], k[3]) == (dataset, fraction)
            }
            own = max(column["iwl"], column["iwld"])
            others = [v for name, v in column.items() if name not in ("iwl", "iwld")]
            best += own > max(others)
            among_two += own >= sorted(column.values())[-2]
    assert (best, among_two) == (19, 28)
    leads = {
        s: max(table_3_2[s, m, None, 0.01][0] for m in ("iwl", "iwld"))
        - max(table_3_2[s, m, None, 0.01][0] for m in WEAK_BASELINES)
        for s in SETS
    }
    assert sorted(s for s in SETS if leads[s] < 2) == ["sms"]
    assert max(leads.values()) < 5
    constant = {"census": 76.38, "sms": 86.60, "trec": 27.60}
    for dataset, mean in constant.items():
        rows = [v for k, v in table_3_2.items() if k[:2] == (dataset, "weasel")]
        assert rows == [(mean, 0.0)] * 5


def test_iwld_leads_table_a_1_in_22_of_its_24_columns(table_a_1):
    """The text says 28 of 30, but the table has 24; MV-S leads the other two, at 100%."""
    lost = []
    for dataset in SETS:
        for fraction in (0.01, 0.1, 0.5, 1.0):
            column = {
                k[1:3]: v[0] for k, v in table_a_1.items() if (k[0], k[3]) == (dataset, fraction)
            }
            if column["iwld", None] < max(column.values()):
                lost.append((dataset, fraction))
    assert lost == [("sms", 1.0), ("agnews", 1.0)]


def test_sizes_that_are_misprinted_are_kept_as_printed():
    """Table 3.1 has Census's test rows on IMDB's line, and 4,751 for the 4,571 of SMS."""
    cells = Reference.load(FOLDER / "table_3_1.reference.yaml").cells
    means = {(cell.where["dataset"], cell.metric): cell.mean for cell in cells}
    assert len(means) == 6 * 5
    assert means["imdb", "test/rows"] == means["census", "test/rows"] == 16281
    assert means["sms", "train/rows"] == 4751
    assert means["trec", "labeling_functions"] == 68
