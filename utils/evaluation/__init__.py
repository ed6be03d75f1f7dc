"""One pass of a network over a split, many questions: protocols, kinds of maps, thresholds, figures."""
