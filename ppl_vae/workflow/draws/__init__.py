"""Draws from q(z|x) and from the model, for any number of rows."""
