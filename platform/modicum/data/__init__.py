"""Finding, reading and caching data; text features."""

from modicum.data.cache import cached_arrays
from modicum.data.digest import digest_arrays, digest_files, digest_folder
from modicum.data.location import cache_folder, data_folder, find_data
from modicum.data.text import encode_texts, encoder_digest, tfidf_features
from modicum.data.wrench import WrenchSplit, read_wrench, wrench_files

__all__ = [
    "WrenchSplit",
    "cache_folder",
    "cached_arrays",
    "data_folder",
    "digest_arrays",
    "digest_files",
    "digest_folder",
    "encode_texts",
    "encoder_digest",
    "find_data",
    "read_wrench",
    "tfidf_features",
    "wrench_files",
]
