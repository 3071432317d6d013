"""localdiff: translate one MRI contrast into another without inventing or erasing disease."""

__version__ = "0.1.0"
