"""Several devices: applied to the model from outside."""
