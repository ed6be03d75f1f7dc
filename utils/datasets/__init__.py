"""Data sets beyond CUB-200-2011 and ILSVRC, a folder each; commands find them by their folders."""
