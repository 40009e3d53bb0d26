"""Running trials, and recording what they report."""
