"""Readers of prompts, reviews and judged pairs."""
