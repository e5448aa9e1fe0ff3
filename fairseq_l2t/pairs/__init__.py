"""Sentence pairs as text: reading, noise, preparation for fairseq."""
