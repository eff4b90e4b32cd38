"""Posteriors as xarray.DataTrees, the form that ArviZ reads."""
