"""Objectives of inference networks, one file each (chapter 4)."""
