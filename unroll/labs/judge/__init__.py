"""What the observed data say of a student's code: pure functions of JSON values and arrays."""
