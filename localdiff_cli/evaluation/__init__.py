"""Did the translation keep the disease? Metrics, statistics, tables and the report: pure functions of arrays, no files read."""
