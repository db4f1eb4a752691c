"""Search over recipes, and the measured effect of each hyperparameter."""
