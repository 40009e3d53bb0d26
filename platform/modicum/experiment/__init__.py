"""The interface of an experiment: settings, metrics, resources, and the trial it is handed."""
