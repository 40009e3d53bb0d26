"""The files of a run folder: trials, provenance, requests to stop, and the driver's status."""
