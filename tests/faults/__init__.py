"""Faults on purpose: kills, full disks, broken files."""
