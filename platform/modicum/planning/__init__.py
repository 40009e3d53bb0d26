"""From a study to its trials, before anything starts."""
