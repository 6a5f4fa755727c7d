"""One module for each place that data come from."""
