"""Lesion segmentation: a compact network on network slices."""
