"""What the study of table 4.1 shows of reverse half-sleep, in a few numbers.

Run: python tests/benchmarks/vae_goals.py RUN…
"""

from __future__ import annotations

import argparse

import pandas as pd

import modicum as md
from modicum.results.statistics import paired_difference

OURS = "reverse_half_sleep"


def last_records(results: md.Results) -> pd.DataFrame:
    """The last record of every finished trial, with the method and its noise as one name."""
    frame = results.frame[results.frame["status"] == "finished"]
    frame = frame.sort_values("record").groupby("trial_id").last().reset_index()
    noise = frame.get("config/noise", pd.Series(index=frame.index, dtype=float))
    names = [
        f"{name} {value:g}" if name == "denoising" else name
        for name, value in zip(frame["config/inference"], noise, strict=True)
    ]
    return frame.assign(method=names)


def differences(records: pd.DataFrame) -> None:
    """Reverse half-sleep against every other method, over the seeds that both have."""
    by_method = {
        method: group.set_index("seed")["test/bpd"] for method, group in records.groupby("method")
    }
    means = {method: values.mean() for method, values in by_method.items()}
    noisy = [method for method in means if method.startswith("denoising")]
    # The best noise is chosen on the test images, in its favour.
    best = [min(noisy, key=means.__getitem__)] if noisy else []
    for other in [method for method in ("vae", "wake") if method in means] + best:
        seeds = sorted(by_method[OURS].index.intersection(by_method[other].index))
        difference = paired_difference(
            [by_method[OURS][seed] for seed in seeds], [by_method[other][seed] for seed in seeds]
        )
        print(f"  test/bpd, {OURS} minus {other}: {difference}")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    for run in parser.parse_args().runs:
        records = last_records(md.load_results(run))
        for (dataset, binarisation), group in records.groupby(
            ["config/dataset", "config/binarisation"]
        ):
            print(f"{run}: {dataset}, binarisation {binarisation}")
            differences(group)
            closed = group.groupby("method")["gap/closed"].agg(["mean", "min", "max"])
            for method, (mean, low, high) in closed.iterrows():
                print(f"  gap closed by {method}: {mean:.2f} (seeds {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
