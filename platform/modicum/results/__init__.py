"""Results of a study: its records, and queries, statistics and figures of them.

Most queries take `records` (the study), `metric`, `rows` and `columns` (settings whose values make
the rows and columns) and `where` (settings of the trials to take; all trials if None). They raise
`InputError` for an unknown metric or setting, and for a setting that varies and is not named.
"""
