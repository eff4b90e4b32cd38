"""Which rows can be believed, why the others cannot, and what would mend them."""
