"""The oracle beside other libraries, timed and checked in one run."""
