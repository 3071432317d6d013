"""Did the translation keep the disease? Arrays of one case → figures, all cases → statistics, statistics → a report; no
volume is read."""
