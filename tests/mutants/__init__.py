"""Small mutations of the core, each with the tests that must fail by it: ``make mutants`` runs them all."""
