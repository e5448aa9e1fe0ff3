"""Plans: which run of a grid follows from which, as steps."""
