"""Training: from a table of patients to the weights and the memory bank of a model bundle."""
