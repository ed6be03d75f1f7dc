"""What any program needs: errors in a sentence, files written whole, processes, options."""
