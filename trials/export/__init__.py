"""A pulled model as one graph, for programs that know neither this package nor Python."""
