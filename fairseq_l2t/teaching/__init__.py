"""Training a teacher: lives of students, teacher optimizer, trainer, record, resume."""
