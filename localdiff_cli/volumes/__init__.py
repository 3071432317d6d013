"""Volumes on disk: the only package that knows about files, geometry and intensity."""
