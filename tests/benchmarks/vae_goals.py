"""What the study of table 4.1 shows of reverse half-sleep, in a few numbers.

Run: python tests/benchmarks/vae_goals.py RUN_OF_TABLE_4_1
"""

from __future__ import annotations

import argparse

import modicum as md

OURS = {"inference": "reverse_half_sleep", "noise": None}


def best_noise(results: md.Results, where: dict[str, object]) -> float:
    """The denoising noise with the lowest mean test BPD: chosen in its favour, on test images."""
    table = results.table(["inference", "noise"], None, "test/bpd", where)
    means = {
        noise: cell.summary.mean
        for ((inference, noise), _), cell in table.cells.items()
        if inference == "denoising"
    }
    return min(means, key=means.__getitem__)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table_4_1")
    results = md.load_results(parser.parse_args().table_4_1)
    for where in results.groups():
        noise = best_noise(results, where)
        print(", ".join(f"{name} {value}" for name, value in where.items()))
        for other in (
            {"inference": "vae", "noise": None},
            {"inference": "wake", "noise": None},
            {"inference": "denoising", "noise": noise},
        ):
            for compared in results.compare(OURS, other, "test/bpd", where):
                print(f"  test/bpd of reverse half-sleep minus {other}: {compared.difference}")
        table = results.table(["inference", "noise"], None, "gap/closed", where)
        for (row, _), cell in table.cells.items():
            s = cell.summary
            interval = "" if s.low is None else f", 95% interval {s.low:.2f} to {s.high:.2f}"
            print(f"  share of the gap closed by {row[0]} {row[1] or ''}: {s.mean:.2f}{interval}")


if __name__ == "__main__":
    main()
