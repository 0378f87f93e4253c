"""The old name of `fedexp.core.types`, for loaders and partitions of users; for one release."""

from fedexp.core.types import Dataset, Partition, Split

__all__ = ["Dataset", "Partition", "Split"]
