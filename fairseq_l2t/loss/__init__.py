"""The loss a teacher defines: teacher (state to coefficients), coefficient forms, dynamic loss, student state."""
