"""Images: sources that are read in batches, and data sets with a training and a test split."""

from modicum.data.images.cifar import read_cifar10_binary
from modicum.data.images.idx import read_idx, read_mnist
from modicum.data.images.numpy_files import read_numpy_splits
from modicum.data.images.opening import open_images
from modicum.data.images.parquet import read_image_parquet
from modicum.data.images.sets import image_set_files, read_image_set
from modicum.data.images.source import ImageSource
from modicum.data.images.splits import ImageSplits

__all__ = [
    "ImageSource",
    "ImageSplits",
    "image_set_files",
    "open_images",
    "read_cifar10_binary",
    "read_idx",
    "read_image_parquet",
    "read_image_set",
    "read_mnist",
    "read_numpy_splits",
]
