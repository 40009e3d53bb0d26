"""Data: finding, reading and caching it, features of texts, and parallel maps over rows."""

from modicum.data.cache import (
    cache_folder,
    cached_arrays,
    cached_folder,
    data_folder,
    find_data,
    is_cached,
)
from modicum.data.digest import digest_arrays, digest_files, digest_folder
from modicum.data.images.binary import read_cifar10_binary, read_idx, read_mnist
from modicum.data.images.encoded import read_image_parquet
from modicum.data.images.formats import image_set_files, open_images, read_image_set
from modicum.data.images.numpy_files import read_numpy_splits
from modicum.data.images.source import ImageSource, ImageSplits
from modicum.data.parallel import map_chunks
from modicum.data.tables.columns import read_columns
from modicum.data.tables.files import TABLE_SUFFIXES, read_table, table_files
from modicum.data.tables.hugging_face import (
    huggingface_digest,
    huggingface_folder,
    load_huggingface,
    read_huggingface,
)
from modicum.data.tables.weak_rows import ABSTAIN, SPLITS, UNKNOWN, WeakRows, WeakSplit
from modicum.data.tables.wrench import is_wrench_folder, read_wrench, wrench_files
from modicum.data.text_features import encode_texts, encoder_digest, tfidf_features

__all__ = [
    "ABSTAIN",
    "SPLITS",
    "TABLE_SUFFIXES",
    "UNKNOWN",
    "ImageSource",
    "ImageSplits",
    "WeakRows",
    "WeakSplit",
    "cache_folder",
    "cached_arrays",
    "cached_folder",
    "data_folder",
    "digest_arrays",
    "digest_files",
    "digest_folder",
    "encode_texts",
    "encoder_digest",
    "find_data",
    "huggingface_digest",
    "huggingface_folder",
    "image_set_files",
    "is_cached",
    "is_wrench_folder",
    "load_huggingface",
    "map_chunks",
    "open_images",
    "read_cifar10_binary",
    "read_columns",
    "read_huggingface",
    "read_idx",
    "read_image_parquet",
    "read_image_set",
    "read_mnist",
    "read_numpy_splits",
    "read_table",
    "read_wrench",
    "table_files",
    "tfidf_features",
    "wrench_files",
]
