"""Recipes: how any process gets ready for a command. A recipe is options that can be pickled; it loads the work of
``tasks/``."""
