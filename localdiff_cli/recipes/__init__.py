"""Recipes: how any process makes ready for a command. A recipe is options that can be pickled; it loads the work of ``tasks/``."""
