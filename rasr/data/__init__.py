"""What training reads: manifests, data sets, and the resumable order of the samples."""

from rasr.data.dataset import ReferenceDataset
from rasr.data.manifest import Row, read_rows, write_manifest
from rasr.data.sampler import ResumableDataLoader, ResumableDistributedSampler

__all__ = [
    "ReferenceDataset",
    "ResumableDataLoader",
    "ResumableDistributedSampler",
    "Row",
    "read_rows",
    "write_manifest",
]
