"""Many volumes: find them, process each on its own, and report what became of it."""
