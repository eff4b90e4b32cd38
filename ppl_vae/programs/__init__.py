"""Any Pyro model and guide: run for many draws, weighed, and judged as VAEs are."""
