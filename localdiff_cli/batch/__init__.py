"""Many volumes: find them, work on each alone, and say what became of it."""
