"""What the study of table 3.2 shows of integrated weak learning, in the few numbers that matter.

Run: python tests/benchmarks/weak_goals.py RUN_FOLDER
"""

from __future__ import annotations

import argparse

import modicum as md

INTEGRATED = ("iwl", "iwld")
TWO_STAGE = ("majority_vote", "snorkel")
SETS = ("sms", "trec", "imdb", "yelp", "agnews", "census")
FRACTIONS = (0.0, 0.01, 0.1, 0.5, 1.0)


def accuracies(results: md.Results, dataset: str) -> dict[tuple[str, float], float]:
    """Mean test accuracy by method and fraction, in points."""
    table = results.table("method", "strong_fraction", "test/accuracy", {"dataset": dataset})
    return {
        (row[0], column[0]): 100 * cell.summary.mean for (row, column), cell in table.cells.items()
    }


def ranks(results: md.Results, dataset: str) -> dict[tuple[str, float], int | None]:
    """1 for the best and 2 for the second-best method of every fraction."""
    table = results.table("method", "strong_fraction", "test/accuracy", {"dataset": dataset})
    return {(row[0], column[0]): cell.rank for (row, column), cell in table.cells.items()}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    results = md.load_results(parser.parse_args().run)
    best = placed = shared = 0
    missed: list[str] = []
    below: list[str] = []
    margins: dict[str, float] = {}
    for dataset in SETS:
        means, places = accuracies(results, dataset), ranks(results, dataset)
        for fraction in FRACTIONS:
            found = {places.get((method, fraction)) for method in INTEGRATED}
            best += 1 in found
            shared += 1 in found and places.get(("labels_only", fraction)) == 1
            placed += bool(found & {1, 2})
            if not found & {1, 2}:
                missed.append(f"{dataset} at {fraction:g}")
            for method in INTEGRATED:
                loss = means.get(("labels_only", fraction), 0) - means[method, fraction]
                if loss > 0.5:
                    below.append(f"{method} on {dataset} at {fraction:g} by {loss:.2f}")
        integrated = max(means[method, 0.01] for method in INTEGRATED)
        margins[dataset] = integrated - max(means[method, 0.01] for method in TWO_STAGE)
    cells = len(SETS) * len(FRACTIONS)
    print(f"iWL or iWLD best in {best}, best or second in {placed} of {cells} cells")
    print(f"  best together with labels only: {shared}")
    print(f"  neither in: {', '.join(missed) or 'none'}")
    print("points over the best two-stage method at 1%, for the better of iWL and iWLD:")
    print("  " + ", ".join(f"{dataset} {margin:+.2f}" for dataset, margin in margins.items()))
    print(f"  2 or more on {sum(m >= 2 for m in margins.values())} of {len(SETS)} sets")
    print(f"more than 0.5 points below labels only: {'; '.join(below) or 'nowhere'}")


if __name__ == "__main__":
    main()
