"""Reading pictures, splits of a data set, transforms and loaders."""
