"""Grids of experiments, for translation and images: ``python -m experiments run GRID.yaml --output-dir DIR``.

``grid`` reads what is to be run, ``plan`` says which run follows from which, ``programs`` starts and stops them,
``records`` reads what they left, ``report`` makes tables and plots; ``workers`` are programs that a plan starts.
"""
