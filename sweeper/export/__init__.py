"""The forms in which a model is taken home, and the fresh process that checks each."""
