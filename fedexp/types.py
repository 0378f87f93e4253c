"""An old name of what loaders and partitions of users are made of; for one release."""

from fedexp.core.examples import Dataset, Split
from fedexp.core.partition import Partition

__all__ = ["Dataset", "Partition", "Split"]
