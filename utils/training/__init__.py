"""Training: arguments, one epoch, processes, what is saved and logged."""
