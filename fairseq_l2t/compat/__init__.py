"""Mends for defects of the stack below us: one file a defect, each naming the versions it is for."""
