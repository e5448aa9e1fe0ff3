"""The loss of a taught student: teacher (state to coefficients), coefficient forms, dynamic loss, student state."""
