"""What is done with the weights once the trials have ended."""
