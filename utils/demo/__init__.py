"""The demo: real photographs composed into a small data set in CUB layout."""
