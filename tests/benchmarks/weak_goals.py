"""What the studies of tables 3.2 and A.1 show of integrated weak learning, in a few numbers.

Run: python tests/benchmarks/weak_goals.py RUN_OF_TABLE_3_2 [RUN_OF_TABLE_A_1]
"""

from __future__ import annotations

import argparse

import modicum as md

INTEGRATED = ("iwl", "iwld")
TWO_STAGE = ("majority_vote", "snorkel")
SETS = ("sms", "trec", "imdb", "yelp", "agnews", "census")
FRACTIONS = (0.0, 0.01, 0.1, 0.5, 1.0)
FEW = 0.01

Means = dict[tuple[str, ...], float]


def accuracies(results: md.Results, dataset: str, fraction: float, *rows: str) -> Means:
    """Mean test accuracy in points, by the settings in `rows`."""
    where = {"dataset": dataset, "strong_fraction": fraction}
    table = results.table(rows, None, "test/accuracy", where)
    # The mean of the same values in another order may differ in its last digits.
    return {
        tuple(row): round(100 * cell.summary.mean, 10) for (row, _), cell in table.cells.items()
    }


def places(results: md.Results) -> None:
    """In how many cells iWL or iWLD is best, or has at most one other method above it."""
    strictly, shared, placed = 0, 0, 0
    missed: list[str] = []
    below: list[str] = []
    for dataset in SETS:
        for fraction in FRACTIONS:
            means = accuracies(results, dataset, fraction, "method")
            integrated = max(means[(method,)] for method in INTEGRATED)
            others = [mean for (method,), mean in means.items() if method not in INTEGRATED]
            above = sum(mean > integrated for mean in others)
            strictly += integrated > max(others)
            shared += integrated == max(others)
            placed += above <= 1
            if above > 1:
                missed.append(f"{dataset} at {fraction:g} ({above} above)")
            for method in INTEGRATED:
                loss = means.get(("labels_only",), 0) - means[(method,)]
                if loss > 0.5:
                    below.append(f"{method} on {dataset} at {fraction:g} by {loss:.2f}")
    cells = len(SETS) * len(FRACTIONS)
    print(f"the better of iWL and iWLD, in {cells} cells:")
    print(f"  alone best in {strictly}, best together with another in {shared}")
    print(f"  best or second in {placed}; not in: {', '.join(missed) or 'none'}")
    print(f"more than 0.5 points below labels only: {'; '.join(below) or 'nowhere'}")


def margins(results: md.Results, *rows: str) -> None:
    """Points of the better of iWL and iWLD over the best two-stage method at 1%."""
    found = {}
    for dataset in SETS:
        means = accuracies(results, dataset, FEW, *rows)
        integrated = max(mean for key, mean in means.items() if key[0] in INTEGRATED)
        found[dataset] = integrated - max(m for key, m in means.items() if key[0] in TWO_STAGE)
    print("  " + ", ".join(f"{dataset} {margin:+.2f}" for dataset, margin in found.items()))
    print(f"  2 or more on {sum(m >= 2 for m in found.values())} of {len(SETS)} sets")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table_3_2")
    parser.add_argument("table_a_1", nargs="?")
    arguments = parser.parse_args()
    results = md.load_results(arguments.table_3_2)
    places(results)
    print("points over the best two-stage method at 1%, with strong labels as votes (-V):")
    margins(results, "method")
    if arguments.table_a_1:
        print("iWLD over the best two-stage method at 1%, the better of -V and -S:")
        margins(md.load_results(arguments.table_a_1), "method", "strong_labels")


if __name__ == "__main__":
    main()
