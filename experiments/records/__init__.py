"""Records: one JSON line for each finished run, and the training logs they are made from."""
