"""Tests of ``localdiff_cli/volumes``."""
