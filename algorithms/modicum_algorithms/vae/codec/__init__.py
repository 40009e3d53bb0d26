"""Lossless compression with bits back: entropy coder, file format, files of images."""
