"""Sentence pairs as text: reading, misalignment, preparation for fairseq."""
