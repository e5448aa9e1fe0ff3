"""A fairseq translation model as a student of the engine."""
