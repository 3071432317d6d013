"""One case: figures of arrays on one grid, each a value or the reason why there is none."""
