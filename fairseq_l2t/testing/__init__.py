"""Tiny students, tiny lives and independent computations, shared by tests, benchmarks and the doctor.

Students:

- ``toy_student``: a student on plain torch modules, without fairseq.
- ``toy_lives``: lives of the toy student, and a trainer of its teacher.
- ``tiny_students``: fairseq's families at width 16, and every optimizer.
- ``refusals``: options that a student must refuse by name.

Independent computations:

- ``differentiable_rules``: update rules and clipping written out again.
- ``hypergradient_check``: the toy student's hypergradient by plain autograd and by central differences.
- ``plain_autograd``: a fairseq student's hypergradient by plain autograd.
- ``derivatives``: value, gradient and second gradient of a function.
- ``fairseq_reference``: K updates by fairseq's own Trainer.
- ``binomial_optimum``: the fewest updates a sweep with few snapshots must make again.

Measurements:

- ``exactness``: the error of a hypergradient, three ways.
- ``parity``: our updates against those of fairseq's Trainer.
- ``truncation``: the share of each update in a hypergradient.
"""
