"""The BIDS App: a raw BIDS dataset in, a derivative dataset and the group's report out, on the engine of the other commands."""
