"""The live page of a study: the report as it stands, what runs, and what can be stopped."""
