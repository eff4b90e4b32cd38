"""A better posterior for some rows by themselves, with the decoder fixed."""
