"""The two labs: a starter, a check of a student's own code, a run of it, and the hand-in."""
