"""Results of a study: tables, curves against budget, comparisons."""
