"""Lossless compression with bits back: coder, container, files."""
