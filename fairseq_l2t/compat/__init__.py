"""Patches for defects of the libraries below: one file per defect, with the versions it is for and a test."""
