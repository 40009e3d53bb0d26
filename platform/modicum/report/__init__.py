"""The report of a study: one JSON document, shown as a page or written as Markdown."""
