"""Grids of experiments, for translation and images: ``python -m experiments run GRID.yaml --output-dir DIR``.

Rooms, each imports those before it: ``grid`` reads what is to be run and checks it; ``programs`` starts, stops and
resumes child programs, each done once; ``records`` reads the logs and the JSON lines of finished runs; ``plan`` says
which run follows from which; ``report`` makes tables and plots of records; ``commands`` has a file for each command.
``grids`` holds grid files and recipes, ``kept`` the records of those that were run (``docs/results`` discusses them).
"""
