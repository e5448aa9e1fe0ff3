"""Time and memory: of unrolling, of the objective, of a student under a teacher."""
