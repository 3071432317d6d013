"""Volumes on disk: the only room that knows files, geometry and intensity."""
