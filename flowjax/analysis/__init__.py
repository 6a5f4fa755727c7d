"""The two-stage analysis: turning points, advice, sweeps, and the statistics under them."""
