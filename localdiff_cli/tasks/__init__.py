"""One volume at a time: what each command does between reading a slice and writing it."""
