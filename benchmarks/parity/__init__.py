"""The unrolled student against the one fairseq trains."""
