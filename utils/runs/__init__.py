"""What a run's folder holds: settings, states, what it was made with."""
