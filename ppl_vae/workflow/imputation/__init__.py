"""Missing entries of rows, and rows without the noise of their likelihood."""
