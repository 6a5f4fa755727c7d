"""The portable engine: passes over the data in XLA, and what makes their moments exact."""
