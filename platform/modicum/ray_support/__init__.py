"""Support for Ray: connections to clusters, and the parts of its private API that are used."""
